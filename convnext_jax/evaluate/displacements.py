"""Shifts and changes of scale, which tell what predictions owe to where an object is and how large."""

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.errors import check
from convnext_jax.evaluate.corruptions.resampling import bilinear, repeat_edge
from convnext_jax.evaluate.predictions import Change


def translate(down: int, right: int) -> Change:
    """Returns a shift by whole pixels. What comes in at an edge repeats the edge.

    Args:
      down: in pixels; negative is up.
      right: in pixels; negative is to the left.

    Returns:
      A function of images, uint8 [B,H,W,C], and their numbers, which it does not use. All shifts share one compiled
      program.
    """

    def change(images: jax.Array, numbers: jax.Array) -> jax.Array:
        del numbers
        return _translated(images, np.int32(down), np.int32(right))

    return change


def scale(factor: float) -> Change:
    """Returns a change of scale about the center, bilinear and without antialiasing.

    A smaller image is surrounded by its repeated edges; of a larger one the middle stays.

    Args:
      factor: greater than 0; less than 1 makes the image smaller.

    Returns:
      A function of images, uint8 [B,H,W,C], and their numbers, which it does not use. All factors share one compiled
      program.

    Raises:
      UserError: the factor is not greater than 0.
    """
    check("factor", factor, factor > 0, "greater than 0")

    def change(images: jax.Array, numbers: jax.Array) -> jax.Array:
        del numbers
        return _scaled(images, np.float32(factor))

    return change


@jax.jit
def _translated(images: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:
    height, width = images.shape[1:3]
    rows = repeat_edge(jnp.arange(height, dtype=jnp.int32) - down, height)
    columns = repeat_edge(jnp.arange(width, dtype=jnp.int32) - right, width)
    return images[:, rows][:, :, columns]


@jax.jit
def _scaled(images: jax.Array, factor: jax.Array) -> jax.Array:
    y, x = (
        (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2) / factor + (size - 1) / 2 for size in images.shape[1:3]
    )
    y, x = jnp.meshgrid(y, x, indexing="ij")

    def one(image: jax.Array) -> jax.Array:
        return jnp.rint(bilinear(image.astype(jnp.float32), y, x)).astype(jnp.uint8)

    return jax.vmap(one)(images)
