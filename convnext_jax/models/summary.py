"""A model in figures, part by part."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.models.architectures import Architecture
from convnext_jax.models.convnext import PARTS
from convnext_jax.models.costs import activation_bytes, count_macs
from convnext_jax.models.create import create_model
from convnext_jax.models.parameters import abstract_model, flat_params, merge_model


@dataclasses.dataclass(frozen=True)
class Part:
    """A row of the summary.

    Attributes:
      name: ``stem``, ``stage 1`` to ``stage 4``, ``head``.
      output: shape of its output for one image, [H,W,C] or [classes].
      parameters: number of scalars.
      macs: multiply-adds for one image.
      activation_bytes: what its backward pass keeps of each image.
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int


def summarize(
    architecture: Architecture,
    *,
    height: int,
    width: int,
    num_classes: int,
    in_channels: int = 3,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> list[Part]:
    """The parts of a model, in order; nothing is computed or allocated.

    Raises:
      UserError: the image is too small for the model.
    """
    architecture.check_image_size(height, width)
    definition, params, statistics = abstract_model(
        lambda: create_model(architecture, num_classes=num_classes, in_channels=in_channels, dtype=dtype)
    )
    sizes = {path: leaf.size for path, leaf in flat_params(params).items()}

    def apply(name: str, params: Any, x: jax.Array) -> jax.Array:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), statistics)
        return merge_model(definition, params, zeros).parts()[name](x)

    def apply_zeros(name: str, x: jax.Array) -> jax.Array:
        # A gradient by the map alone is asked for, so that the parameters are constants, whatever their values.
        return apply(name, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params), x)

    rows = []
    x = jax.ShapeDtypeStruct((1, height, width, in_channels), jnp.dtype(dtype))
    for name in PARTS:
        output = jax.eval_shape(functools.partial(apply, name), params, x)
        rows.append(
            Part(
                name=name,
                output=output.shape[1:],
                parameters=sum(size for path, size in sizes.items() if _part_of(path) == name),
                macs=count_macs(functools.partial(apply, name), params, x),
                activation_bytes=activation_bytes(functools.partial(apply_zeros, name), x),
            )
        )
        x = output
    return rows


def _part_of(path: str) -> str:
    """The part that a parameter belongs to."""
    if stage := re.match(r"stages/(\d+)/", path):
        return f"stage {int(stage[1]) + 1}"
    return "stem" if path.startswith("stem/") else "head"
