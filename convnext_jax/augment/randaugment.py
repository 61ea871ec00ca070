"""RandAugment and TrivialAugment, which draw operations at random."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.operations import Operation, apply_operation


class Range(NamedTuple):
    """The values of an operation between the lowest and the highest magnitude.

    Attributes:
      operation: the operation.
      start: value at magnitude 0.
      end: value at magnitude 1.
      mirrored: whether half of the images take ``start - (end - start) * magnitude`` instead.
      least: lower bound of the value.
      unit: ``width`` or ``height`` if the value is a share of the image's width or height, else empty.
    """

    operation: Operation
    start: float = 0.0
    end: float = 0.0
    mirrored: bool = False
    least: float = -np.inf
    unit: str = ""


# "Increasing": all operations get stronger with the magnitude, as in timm's `rand-...-inc1`. In Cubuk et al. 2020 some
# of them get weaker.
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

# The "wide" space of Müller and Hutter 2021, with factors of 1 - 0.99 s or 1 + 0.99 s as in torchvision. As everywhere
# here, geometric operations are bilinear and fill with the mean color. The authors use the nearest pixel and black.
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
    """Applies RandAugment: each image goes through operations of its own, drawn at random.

    >>> images = jnp.full((2, 8, 8, 3), 100, jnp.uint8)
    >>> fill = jnp.full(3, 128, jnp.uint8)
    >>> randaugment(jax.random.key(0), images, fill, layers=2, magnitude=7.0).shape
    (2, 8, 8, 3)

    Args:
      key: a PRNG key.
      images: uint8 [B,H,W,C], C from 1 to 4.
      fill: uint8 [C], the color of what comes in from outside of the image.
      layers: n, the number of consecutive operations, drawn with replacement.
      magnitude: m, the mean magnitude, in [0, 10].
      magnitude_std: standard deviation of the magnitude. Each operation draws its magnitude from a normal distribution,
        clipped to [0, 10].
      probability: probability that an operation that was drawn is applied.

    Returns:
      uint8 [B,H,W,C].

    Reference:
      Cubuk et al., `RandAugment <https://arxiv.org/abs/1909.13719>`_, 2020, with the probability and the standard
      deviation from timm.
    """

    def layer(images: jax.Array, numbers: jax.Array) -> tuple[jax.Array, None]:
        choice, sign, noise, acts = numbers
        normal = jax.scipy.special.ndtri(jnp.maximum(noise, 2.0**-24))  # ndtri(0) is -inf
        strength = jnp.clip(magnitude + magnitude_std * normal, 0.0, 10.0) / 10.0
        operation, value = _operations(RANDAUGMENT, choice, sign, strength, images.shape)
        operation = jnp.where(acts < probability, operation, Operation.IDENTITY)
        return apply_operation(images, operation, value, fill), None

    # There is only one draw because random generators are slow to compile. The layers are a loop because XLA would
    # otherwise compute the first layer again in every operation of the second.
    return jax.lax.scan(layer, images, jax.random.uniform(key, (layers, 4, images.shape[0])))[0]


def trivial_augment(key: jax.Array, images: jax.Array, fill: jax.Array) -> jax.Array:
    """Applies TrivialAugment: each image goes through one operation, with one of 31 equally likely magnitudes.

    >>> images = jnp.full((2, 8, 8, 3), 100, jnp.uint8)
    >>> trivial_augment(jax.random.key(0), images, jnp.full(3, 128, jnp.uint8)).shape
    (2, 8, 8, 3)

    Args:
      key: a PRNG key.
      images: uint8 [B,H,W,C], C from 1 to 4.
      fill: uint8 [C], the color of what comes in from outside of the image.

    Returns:
      uint8 [B,H,W,C].

    Reference:
      Müller and Hutter, `TrivialAugment <https://arxiv.org/abs/2103.10158>`_, 2021, with the "wide" space.
    """
    choice, sign, strength = jax.random.uniform(key, (3, images.shape[0]))
    strength = jnp.floor(31 * strength) / 30.0
    operation, value = _operations(TRIVIALAUGMENT, choice, sign, strength, images.shape)
    return apply_operation(images, operation, value, fill)


def _operations(
    ranges: tuple[Range, ...], choice: jax.Array, sign: jax.Array, strength: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Turns random numbers into operations.

    Args:
      ranges: the operations to choose from.
      choice: chooses the operation, float32 [B] in [0, 1).
      sign: chooses the direction of mirrored operations, float32 [B] in [0, 1).
      strength: the magnitude, float32 [B] in [0, 1].
      shape: shape of the images, (B, H, W, C).

    Returns:
      The operation, int32 [B], and its value, float32 [B].
    """
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
