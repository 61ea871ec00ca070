"""Pillow's image operations on a batch in which each image has its own: the alphabet of the random policies.

Everything geometric is one affine map; an image that an operation leaves alone stays as it is to the last bit.
"""

import enum

import jax
import jax.numpy as jnp

from convnext_jax.augment.color import (
    auto_contrast,
    blend,
    equalize,
    grayscale,
    mean_gray,
    posterize,
    smooth,
    solarize,
    solarize_add,
)
from convnext_jax.augment.geometry import affine


class Operation(enum.IntEnum):
    """The operations; behind each, what its value means."""

    IDENTITY = 0  # nothing
    AUTO_CONTRAST = 1  # nothing
    EQUALIZE = 2  # nothing
    INVERT = 3  # nothing
    ROTATE = 4  # degrees, counter-clockwise
    POSTERIZE = 5  # bits that are kept, 0 to 8; a fraction is rounded up
    SOLARIZE = 6  # the least value that is inverted
    SOLARIZE_ADD = 7  # what is added to values below 128; a fraction is cut off
    COLOR = 8  # factor; 0 is grey, 1 the image
    CONTRAST = 9  # factor; 0 is flat, 1 the image
    BRIGHTNESS = 10  # factor; 0 is black, 1 the image
    SHARPNESS = 11  # factor; 0 is smooth, 1 the image
    SHEAR_X = 12  # pixels to the left for each pixel down
    SHEAR_Y = 13  # pixels up for each pixel to the right
    TRANSLATE_X = 14  # pixels to the left
    TRANSLATE_Y = 15  # pixels up


_GEOMETRIC = (
    Operation.ROTATE,
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
)


def apply_operation(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """Does to each image its own operation.

    A CPU takes the images one after another and does no more than each one asks for; the whole batch through all
    operations, as an accelerator does it, takes it far longer (benchmarks/notes.md).

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], each an :class:`Operation`.
      value: float32 [B], in the operation's own unit.
      fill: uint8 [3], the colour that comes in from outside.

    Returns:
      uint8 [B, H, W, 3].
    """
    # A loop over a batch that is spread over devices would gather it on each of them.
    on_cpu = one_by_one if jax.device_count() == 1 else all_at_once
    return jax.lax.platform_dependent(images, operation, value, fill, cpu=on_cpu, default=all_at_once)


def one_by_one(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """:func:`apply_operation` in a loop over the batch."""
    return jax.lax.map(lambda each: apply_to_one(each[0], each[1], each[2], fill), (images, operation, value))


def all_at_once(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """:func:`apply_operation` by sending the whole batch through all operations."""
    return jax.vmap(apply_to_one, (0, 0, 0, None))(images, operation, value, fill)


def apply_to_one(image: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """Does an operation, int32, of a value, float32, to an image, uint8 [H, W, 3]."""
    images, values = image[None], value[None]
    effects = {
        Operation.IDENTITY: lambda: images,
        Operation.AUTO_CONTRAST: lambda: auto_contrast(images),
        Operation.EQUALIZE: lambda: equalize(images),
        Operation.INVERT: lambda: 255 - images,
        _GEOMETRIC: lambda: affine(images, affine_matrices(operation[None], values, *image.shape[:2]), fill),
        Operation.POSTERIZE: lambda: posterize(images, jnp.clip(jnp.ceil(values).astype(jnp.int32), 0, 8)),
        Operation.SOLARIZE: lambda: solarize(images, values),
        Operation.SOLARIZE_ADD: lambda: solarize_add(images, jnp.clip(values.astype(jnp.int32), 0, 255)),
        Operation.COLOR: lambda: blend(grayscale(images), images, values),
        Operation.CONTRAST: lambda: blend(mean_gray(images), images, values),
        Operation.BRIGHTNESS: lambda: blend(jnp.int32(0), images, values),
        Operation.SHARPNESS: lambda: blend(smooth(images), images, values),
    }
    # A batch goes through all of them, so what is geometric is one.
    keys = list(effects)
    branch = jnp.asarray([keys.index(_GEOMETRIC if which in _GEOMETRIC else which) for which in Operation])
    return jax.lax.switch(branch[operation], list(effects.values()))[0]


def affine_matrices(operation: jax.Array, value: jax.Array, height: int, width: int) -> jax.Array:
    """The affine map of each operation, float32 [B, 6] as :func:`affine` takes it; of others than geometric the
    identity."""

    def of(which: Operation, here: jax.Array, elsewhere: float) -> jax.Array:
        return jnp.where(operation == which, here, elsewhere)

    # Rotation is about the centre. The sine and cosine of 0 are exact, and so is the identity.
    angle = -jnp.deg2rad(of(Operation.ROTATE, value, 0.0))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return jnp.stack(
        [
            cos,
            sin + of(Operation.SHEAR_X, value, 0.0),
            x - cos * x - sin * y + of(Operation.TRANSLATE_X, value, 0.0),
            -sin + of(Operation.SHEAR_Y, value, 0.0),
            cos,
            y + sin * x - cos * y + of(Operation.TRANSLATE_Y, value, 0.0),
        ],
        -1,
    )
