"""Pillow's image operations, from which the random policies draw. Each image of a batch has its own operation.

All geometric operations are affine maps. An operation whose value asks for no change returns the image bit by bit.
"""

import enum
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convnext_jax.augment.color import (
    auto_contrast,
    blend,
    equalize,
    grayscale,
    keep_alpha,
    mean_gray,
    posterize,
    smooth,
    solarize,
    solarize_add,
)
from convnext_jax.augment.geometry import affine
from convnext_jax.ops.cpu import vmap_or_loop_on_cpu


class Operation(enum.IntEnum):
    """The operations. The comments say what the value of each one means."""

    IDENTITY = 0  # nothing
    AUTO_CONTRAST = 1  # nothing
    EQUALIZE = 2  # nothing
    INVERT = 3  # nothing
    ROTATE = 4  # degrees, counterclockwise
    POSTERIZE = 5  # number of bits to keep, 0 to 8; fractions are rounded up
    SOLARIZE = 6  # the smallest value that is inverted
    SOLARIZE_ADD = 7  # the amount added to values below 128; fractions are cut off
    COLOR = 8  # factor: 0 gives gray, 1 the image
    CONTRAST = 9  # factor: 0 gives one level of gray, 1 the image
    BRIGHTNESS = 10  # factor: 0 gives black, 1 the image
    SHARPNESS = 11  # factor: 0 gives the smoothed image, 1 the image
    SHEAR_X = 12  # pixels to the left per pixel down
    SHEAR_Y = 13  # pixels up per pixel to the right
    TRANSLATE_X = 14  # pixels to the left
    TRANSLATE_Y = 15  # pixels up


def apply_operation(images: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """Applies its own operation to each image.

    On a CPU the images are processed one after another, and each one goes through its own operation only. Vmapping over
    the batch, as on an accelerator, sends every image through all operations and takes a CPU far longer
    (benchmarks/notes.md).

    >>> images = jnp.full((2, 8, 8, 3), 200, jnp.uint8)
    >>> operations = jnp.array([Operation.INVERT, Operation.IDENTITY])
    >>> apply_operation(images, operations, jnp.zeros(2), jnp.zeros(3, jnp.uint8))[:, 0, 0, 0].tolist()
    [55, 200]

    Args:
      images: uint8 [B,H,W,C], C from 1 to 4.
      operation: int32 [B], each one an `Operation`.
      value: float32 [B], in the unit of the operation.
      fill: uint8 [C], the color of what comes in from outside of the image.

    Returns:
      uint8 [B,H,W,C].
    """

    def apply(image: jax.Array, operation: jax.Array, value: jax.Array) -> jax.Array:
        return apply_to_one(image, operation, value, fill)

    return vmap_or_loop_on_cpu(apply)(images, operation, value)


def apply_to_one(image: jax.Array, operation: jax.Array, value: jax.Array, fill: jax.Array) -> jax.Array:
    """Applies an operation to a single image.

    >>> image = jnp.full((2, 2, 3), 200, jnp.uint8)
    >>> apply_to_one(image, jnp.int32(Operation.BRIGHTNESS), jnp.float32(0.5), jnp.zeros(3, jnp.uint8)).max().item()
    100

    Args:
      image: uint8 [H,W,C], C from 1 to 4.
      operation: an `Operation`, int32 scalar.
      value: in the unit of the operation, float32 scalar.
      fill: uint8 [C], the color of what comes in from outside of the image.

    Returns:
      uint8 [H,W,C].
    """
    images, values = image[None], value[None]
    colors = {
        Operation.IDENTITY: lambda: images,
        Operation.AUTO_CONTRAST: lambda: auto_contrast(images),
        Operation.EQUALIZE: lambda: equalize(images),
        Operation.INVERT: lambda: 255 - images,
        Operation.POSTERIZE: lambda: posterize(images, jnp.clip(jnp.ceil(values).astype(jnp.int32), 0, 8)),
        Operation.SOLARIZE: lambda: solarize(images, values),
        Operation.SOLARIZE_ADD: lambda: solarize_add(images, jnp.clip(values.astype(jnp.int32), 0, 255)),
        Operation.COLOR: lambda: blend(grayscale(images), images, values),
        Operation.CONTRAST: lambda: blend(mean_gray(images), images, values),
        Operation.BRIGHTNESS: lambda: blend(jnp.int32(0), images, values),
        Operation.SHARPNESS: lambda: blend(smooth(images), images, values),
    }

    def move() -> jax.Array:
        return affine(images, affine_matrices(operation[None], values, *image.shape[:2]), fill)

    # A vmapped batch goes through all branches, so all geometric operations share one.
    branches = [*(functools.partial(_color, images, effect) for effect in colors.values()), move]
    keys = list(colors)
    branch = jnp.asarray([keys.index(which) if which in colors else len(keys) for which in Operation])
    return jax.lax.switch(branch[operation], branches)[0]


def _color(images: jax.Array, effect: Callable[[], jax.Array]) -> jax.Array:
    return keep_alpha(images, effect())


def affine_matrices(operation: jax.Array, value: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the affine map of each operation. It is the identity for operations that are not geometric.

    >>> affine_matrices(jnp.array([Operation.TRANSLATE_X]), jnp.array([3.0]), 8, 8).tolist()
    [[1.0, 0.0, 3.0, 0.0, 1.0, 0.0]]

    Args:
      operation: int32 [B], each one an `Operation`.
      value: float32 [B], in the unit of the operation.
      height: height of the images in pixels.
      width: width of the images in pixels.

    Returns:
      float32 [B,6], as `convnext_jax.augment.geometry.affine` takes them.
    """

    def of(which: Operation, here: jax.Array, elsewhere: float) -> jax.Array:
        return jnp.where(operation == which, here, elsewhere)

    # Rotation is about the center. The sine and cosine of 0 are exact, so the identity is exact, too.
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
