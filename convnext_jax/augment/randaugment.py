"""Policies that draw operations at random: RandAugment and TrivialAugment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.operations import Operation, apply_operation


class Range(NamedTuple):
    """How strong an operation is: its value at the lowest and the highest magnitude.

    Attributes:
      operation: which.
      start: value at magnitude 0.
      end: value at magnitude 1.
      mirrored: whether half of the images take ``start - (end - start) magnitude`` instead.
      least: what the value is never below.
      unit: ``width`` or ``height`` where the value is a share of the image's.
    """

    operation: Operation
    start: float = 0.0
    end: float = 0.0
    mirrored: bool = False
    least: float = -np.inf
    unit: str = ""


# "Increasing": every operation is the stronger, the higher the magnitude, as in timm's `rand-...-inc1`. Cubuk et al.
# 2020 let some of them weaken instead.
RANDAUGMENT = (
    Range(Operation.AUTO_CONTRAST),
    Range(Operation.EQUALIZE),
    Range(Operation.INVERT),
    Range(Operation.ROTATE, 0.0, 30.0, mirrored=True),
    Range(Operation.POSTERIZE, 4.0, 0.0),
    Range(Operation.SOLARIZE, 256.0, 0.0),
    Range(Operation.SOLARIZE_ADD, 0.0, 110.0),
    Range(Operation.COLOR, 1.0, 1.9, mirrored=True, least=0.1),
    Range(Operation.CONTRAST, 1.0, 1.9, mirrored=True, least=0.1),
    Range(Operation.BRIGHTNESS, 1.0, 1.9, mirrored=True, least=0.1),
    Range(Operation.SHARPNESS, 1.0, 1.9, mirrored=True, least=0.1),
    Range(Operation.SHEAR_X, 0.0, 0.3, mirrored=True),
    Range(Operation.SHEAR_Y, 0.0, 0.3, mirrored=True),
    Range(Operation.TRANSLATE_X, 0.0, 0.45, mirrored=True, unit="width"),
    Range(Operation.TRANSLATE_Y, 0.0, 0.45, mirrored=True, unit="height"),
)

# The "wide" space of Müller and Hutter 2021, with factors of 1 - 0.99 s or 1 + 0.99 s as in torchvision; bilinear and
# filled with the mean colour like everything here, where the authors take the nearest pixel and black.
TRIVIALAUGMENT = (
    Range(Operation.IDENTITY),
    Range(Operation.AUTO_CONTRAST),
    Range(Operation.EQUALIZE),
    Range(Operation.ROTATE, 0.0, 135.0, mirrored=True),
    Range(Operation.SOLARIZE, 256.0, 0.0),
    Range(Operation.COLOR, 1.0, 1.99, mirrored=True),
    Range(Operation.POSTERIZE, 8.0, 2.0),
    Range(Operation.CONTRAST, 1.0, 1.99, mirrored=True),
    Range(Operation.BRIGHTNESS, 1.0, 1.99, mirrored=True),
    Range(Operation.SHARPNESS, 1.0, 1.99, mirrored=True),
    Range(Operation.SHEAR_X, 0.0, 0.99, mirrored=True),
    Range(Operation.SHEAR_Y, 0.0, 0.99, mirrored=True),
    Range(Operation.TRANSLATE_X, 0.0, 32.0, mirrored=True),
    Range(Operation.TRANSLATE_Y, 0.0, 32.0, mirrored=True),
)


def randaugment(
    key: jax.Array,
    images: jax.Array,
    fill: jax.Array,
    *,
    layers: int,
    magnitude: float,
    magnitude_std: float = 0.0,
    probability: float = 0.5,
) -> jax.Array:
    """RandAugment: each image goes through operations drawn for it alone.

    Args:
      key: a PRNG key.
      images: uint8 [B, H, W, 3].
      fill: uint8 [3], the colour that comes in from outside.
      layers: n, operations one after another, drawn with replacement.
      magnitude: m, the mean strength, in [0, 10].
      magnitude_std: the deviation of the strength, drawn for each operation from a normal distribution and kept in
        [0, 10].
      probability: that an operation that was drawn acts.

    Returns:
      uint8 [B, H, W, 3].

    Reference:
      Cubuk et al., `RandAugment <https://arxiv.org/abs/1909.13719>`_, 2020, with the probability and the deviation of
      timm.
    """

    def layer(images: jax.Array, numbers: jax.Array) -> tuple[jax.Array, None]:
        choice, sign, noise, acts = numbers
        normal = jax.scipy.special.ndtri(jnp.maximum(noise, 2.0**-24))  # of 0 it would be infinite
        strength = jnp.clip(magnitude + magnitude_std * normal, 0.0, 10.0) / 10.0
        operation, value = _operations(RANDAUGMENT, choice, sign, strength, images.shape)
        operation = jnp.where(acts < probability, operation, Operation.IDENTITY)
        return apply_operation(images, operation, value, fill), None

    # All numbers in one draw, since generators are slow to compile, and the layers as a loop: written one after the
    # other, XLA would compute the first again in every operation of the second.
    return jax.lax.scan(layer, images, jax.random.uniform(key, (layers, 4, images.shape[0])))[0]


def trivial_augment(key: jax.Array, images: jax.Array, fill: jax.Array) -> jax.Array:
    """TrivialAugment: one operation an image, of a strength drawn uniformly among 31.

    Args:
      key: a PRNG key.
      images: uint8 [B, H, W, 3].
      fill: uint8 [3], the colour that comes in from outside.

    Returns:
      uint8 [B, H, W, 3].

    Reference:
      Müller and Hutter, `TrivialAugment <https://arxiv.org/abs/2103.10158>`_, 2021, its "wide" space.
    """
    choice, sign, strength = jax.random.uniform(key, (3, images.shape[0]))
    strength = jnp.floor(31 * strength) / 30.0
    operation, value = _operations(TRIVIALAUGMENT, choice, sign, strength, images.shape)
    return apply_operation(images, operation, value, fill)


def _operations(
    ranges: tuple[Range, ...], choice: jax.Array, sign: jax.Array, strength: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """An operation for each image, int32 [B], and its value, float32 [B], from three numbers each in [0, 1)."""
    _, height, width, _ = shape
    size = {"width": width, "height": height, "": 1}
    table = np.array(
        [
            (each.operation, each.start, (each.end - each.start) * size[each.unit], each.mirrored, each.least)
            for each in ranges
        ],
        np.float32,
    )
    which = (choice * len(ranges)).astype(jnp.int32)
    operation, start, span, mirrored, least = jnp.asarray(table)[which].T
    negative = (mirrored > 0) & (sign < 0.5)
    value = start + jnp.where(negative, -strength, strength) * span
    return operation.astype(jnp.int32), jnp.maximum(value, least)
