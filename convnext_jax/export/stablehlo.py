"""A network as one StableHLO program with its weights in it, which a program that has only jax can run."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import export

from convnext_jax.evaluate.opened_classifier import OpenedClassifier

PROGRAM_FILE = "model.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_program(network: OpenedClassifier, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """Returns a network as a serialized `jax.export.Exported`.

    It takes images, uint8 [B,H,W,C] with any B, and returns logits, float32 [B,K]. Normalization is a part of it. JAX
    keeps such a file readable for six months: it serves, and it is no archive.

    Args:
      network: the network.
      platforms: that it is compiled for, of ``cpu``, ``cuda``, ``rocm`` and ``tpu``.
    """
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *network.preprocess.shape), jnp.uint8)
    program = jax.jit(lambda images: network.forward(params, batch_stats, images))
    return bytes(export.export(program, platforms=list(platforms))(images).serialize())
