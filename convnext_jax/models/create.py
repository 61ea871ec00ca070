"""Models by name, as users know it from timm."""

import dataclasses
import fnmatch
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.config import INITIALIZATIONS
from convnext_jax.models.architectures import ARCHITECTURES, Architecture, check, named_architecture
from convnext_jax.models.convnext import ConvNeXt
from convnext_jax.layers.layers import Initializer
from convnext_jax.models.parameters import merge_model, split_model
from convnext_jax.models.weights import Pretrained, start_from


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows and that match a shell pattern, each family from its smallest.

    >>> list_models("*_tiny")
    ['convnext_tiny', 'convnextv2_tiny']
    """
    return fnmatch.filter(ARCHITECTURES, pattern)


def create_model(
    name: str | Architecture,
    *,
    num_classes: int,
    stem: str | None = None,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    remat: bool = False,
    dtype: jax.typing.DTypeLike = jnp.float32,
    in_channels: int = 3,
    initialization: str = "normal",
    init_from: str | Path | None = None,
    seed: int = 0,
) -> nnx.Module:
    """Creates a model with random float32 parameters.

    It allocates nothing inside `jax.eval_shape(lambda: split_model(create_model(...))[1])`.

    Args:
      name: one of `list_models()`, or an `Architecture` of your own.
      num_classes: number of logits, at least 1.
      stem: one of `convnext_jax.models.architectures.STEMS`; the architecture's own where not given.
      drop_path: rate of stochastic depth in the last block, in [0, 1), growing linearly from 0 in the first.
      dropout: rate of the dropout before the head, in [0, 1).
      remat: whether a block's insides are computed again in the backward pass instead of being kept: less memory,
        about a third more arithmetic. Not with BatchNorm.
      dtype: of the computation; normalisation statistics and logits stay float32.
      in_channels: channels of the images.
      initialization: of the kernels, one of `INITIALIZATIONS`; see `convnext_jax.layers.layers.Initializer`.
      init_from: folder of weights to start from (`convnext_jax.tools.import_torch`). The head stays random where its
        number of classes differs, and a stem of another size takes the resized kernel; a warning says so.
      seed: of the initial parameters, which are a function of it; 0 or more.

    Raises:
      UserError: a name that is not in its table, a value out of range, or weights that do not fit.
    """
    architecture = named_architecture(name) if isinstance(name, str) else name
    if stem is not None:
        architecture = dataclasses.replace(architecture, stem=stem)
    check("num_classes", num_classes, num_classes >= 1, "1 or more")
    check("in_channels", in_channels, in_channels >= 1, "1 or more")
    check("drop_path", drop_path, 0.0 <= drop_path < 1.0, "in [0, 1)")
    check("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
    check(
        "remat",
        remat,
        not (remat and architecture.norm == "batch"),
        "off with BatchNorm, whose statistics it would lose",
    )
    check("initialization", initialization, initialization in INITIALIZATIONS, f"one of {', '.join(INITIALIZATIONS)}")
    check("seed", seed, seed >= 0, "0 or more")
    model = ConvNeXt(
        Initializer(np.random.SeedSequence(seed), initialization),
        architecture,
        num_classes=num_classes,
        in_channels=in_channels,
        drop_path=drop_path,
        dropout=dropout,
        remat=remat,
        dtype=dtype,
    )
    if init_from is None:
        return model
    definition, params, statistics = split_model(model)
    params, notes = start_from(Pretrained.read(Path(init_from)), params)
    for note in notes:
        logging.getLogger(__name__).warning("%s: %s", init_from, note)
    return merge_model(definition, jax.tree.map(jnp.asarray, params), statistics)
