"""Rectangles of whole pixels, int32 [B, 4]: left, upper, right and lower bounds."""

import jax
import jax.numpy as jnp
import numpy as np


def random_box(
    key: jax.Array, count: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Draws rectangles of whole pixels in an image.

    Args:
      key: a PRNG key.
      count: how many, B.
      height: of the image.
      width: of the image.
      area: the least and the most share of the image's area, uniform.
      ratio: the least and the most width over height, uniform on the logarithmic scale.

    Returns:
      int32 [B, 4], left, upper, right and lower bounds, the place uniform, and bool [B]: ten draws are made and the
      first that fits is taken; where none does, the second says False and the first nothing.
    """
    uniform = jax.random.uniform(key, (22, count))
    share, logarithm, place = uniform[:10], uniform[10:20], uniform[20:]
    pixels = (area[0] + share * (area[1] - area[0])) * (height * width)
    aspect = ratio[0] * jnp.exp(logarithm * np.log(ratio[1] / ratio[0]))
    widths = jnp.round(jnp.sqrt(pixels * aspect)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(pixels / aspect)).astype(jnp.int32)
    fits = (0 < widths) & (widths <= width) & (0 < heights) & (heights <= height)
    first = jnp.argmax(fits, axis=0)[None]
    box_width, box_height = (jnp.take_along_axis(sides, first, 0)[0] for sides in (widths, heights))
    left = jnp.floor(place[0] * (width - box_width + 1)).astype(jnp.int32)
    upper = jnp.floor(place[1] * (height - box_height + 1)).astype(jnp.int32)
    return jnp.stack([left, upper, left + box_width, upper + box_height], -1), fits.any(0)


def inside(box: jax.Array, height: int, width: int) -> jax.Array:
    """Which pixels lie in boxes, int32 [B, 4]: bool [B, H, W]."""
    left, upper, right, lower = (box[:, index, None, None] for index in range(4))
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    return (left <= x) & (x < right) & (upper <= y) & (y < lower)


def area(box: jax.Array) -> jax.Array:
    """How many pixels lie in boxes, int32 [B, 4]: int32 [B]."""
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
