"""Models by name, as users know it from timm."""

import fnmatch
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError
from convnext_jax.models.convnext import ConvNeXt
from convnext_jax.models.sizes import SIZES, check_names


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows and that match a shell pattern, smallest model first.

    >>> list_models("*_t*")
    ['convnext_tiny']
    """
    return fnmatch.filter(SIZES, pattern)


def create_model(
    name: str,
    *,
    num_classes: int,
    stem: str = "patch4",
    drop_path: float = 0.0,
    layer_scale: float = 1e-6,
    dtype: jax.typing.DTypeLike = jnp.float32,
    in_channels: int = 3,
    seed: int = 0,
) -> nnx.Module:
    """Creates a model with random float32 parameters.

    It allocates nothing inside `jax.eval_shape(lambda: split_model(create_model(...))[1])`.

    Args:
      name: one of `list_models()`.
      num_classes: number of logits, at least 1.
      stem: one of `convnext_jax.models.sizes.STEMS`; "patch4" is the paper's.
      drop_path: rate of stochastic depth in the last block, in [0, 1), growing linearly from 0 in the first.
      layer_scale: what each block's layer scale starts from; 0 leaves layer scale out.
      dtype: of the computation; normalisation statistics and logits stay float32.
      in_channels: channels of the images.
      seed: of the initial parameters, which are a function of it; 0 or more.

    Raises:
      UserError: a name that is not in its table, or a value out of range.
    """
    check_names(name, stem)
    _check("num_classes", num_classes, num_classes >= 1, "1 or more")
    _check("in_channels", in_channels, in_channels >= 1, "1 or more")
    _check("drop_path", drop_path, 0.0 <= drop_path < 1.0, "in [0, 1)")
    _check("seed", seed, seed >= 0, "0 or more")
    _check("layer_scale", layer_scale, 0.0 <= layer_scale < math.inf, "0 (left out) or a positive number")
    return ConvNeXt(
        np.random.SeedSequence(seed),
        SIZES[name],
        stem=stem,
        num_classes=num_classes,
        in_channels=in_channels,
        drop_path=drop_path,
        layer_scale=layer_scale,
        dtype=dtype,
    )


def _check(field: str, value: float, holds: bool, allowed: str) -> None:
    if not holds:
        raise UserError(f"{field} is {value}; it must be {allowed}")
