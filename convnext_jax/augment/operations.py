"""Pillow's image operations on a batch in which each image has its own: the alphabet of the random policies.

A batch goes once through each family, in which an image that has another operation stays as it is to the last bit:
one affine map for everything geometric, one blend for everything that fades towards another image, one selection
among what changes values one by one.
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


def apply_operation(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """Does to each image its own operation.

    Args:
      images: uint8 [B, H, W, 3].
      operation: int32 [B], each an :class:`Operation`.
      value: float32 [B], in the operation's own unit.
      fill: uint8 [3], the colour that comes in from outside.

    Returns:
      uint8 [B, H, W, 3].
    """
    images = affine(images, affine_matrices(operation, value, *images.shape[1:3]), fill)
    images = _change_values(images, operation, value)
    return _fade(images, operation, value)


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


def _change_values(images: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
    """The operations that map each value of a channel to another."""
    bits = jnp.clip(jnp.ceil(value).astype(jnp.int32), 0, 8)
    amount = jnp.clip(value.astype(jnp.int32), 0, 255)
    results = {
        Operation.AUTO_CONTRAST: auto_contrast(images),
        Operation.EQUALIZE: equalize(images),
        Operation.INVERT: 255 - images,
        Operation.POSTERIZE: posterize(images, bits),
        Operation.SOLARIZE: solarize(images, value),
        Operation.SOLARIZE_ADD: solarize_add(images, amount),
    }
    for which, result in results.items():
        images = jnp.where((operation == which)[:, None, None, None], result, images)
    return images


def _fade(images: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
    """The operations that move an image towards another one, or away from it."""
    degenerate = images.astype(jnp.int32)
    fades = jnp.zeros(operation.shape, bool)
    for which, towards in (
        (Operation.COLOR, grayscale(images)),
        (Operation.CONTRAST, mean_gray(images)),
        (Operation.BRIGHTNESS, jnp.zeros((), jnp.int32)),
        (Operation.SHARPNESS, smooth(images)),
    ):
        chosen = operation == which
        degenerate = jnp.where(chosen[:, None, None, None], towards, degenerate)
        fades |= chosen
    return blend(degenerate, images, jnp.where(fades, value, 1.0))
