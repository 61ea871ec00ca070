"""Rectangles of whole pixels: int32 [B,4] with the left, upper, right and lower bounds, right and lower exclusive."""

import jax
import jax.numpy as jnp
import numpy as np


def random_box(
    key: jax.Array, count: int, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Draws a random rectangle for each image.

    Ten candidates are drawn, and the first one that fits into the image is taken. Its position is uniform.

    >>> box, fits = random_box(jax.random.key(0), 2, 8, 8, (1.0, 1.0), (1.0, 1.0))
    >>> box.tolist(), fits.tolist()
    ([[0, 0, 8, 8], [0, 0, 8, 8]], [True, True])

    Args:
      key: a PRNG key.
      count: number of rectangles, B.
      height: height of the images in pixels.
      width: width of the images in pixels.
      area: smallest and largest share of the image's area. The share is drawn uniformly.
      ratio: smallest and largest ratio of width to height. The ratio is drawn uniformly on a logarithmic scale.

    Returns:
      The rectangles, int32 [B,4], and whether each one fits, bool [B]. If none of the ten candidates fits, the
      rectangle is meaningless.
    """
    uniform = jax.random.uniform(key, (22, count))
    share, logarithm, position = uniform[:10], uniform[10:20], uniform[20:]
    pixels = (area[0] + share * (area[1] - area[0])) * (height * width)
    aspect = ratio[0] * jnp.exp(logarithm * np.log(ratio[1] / ratio[0]))
    widths = jnp.round(jnp.sqrt(pixels * aspect)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(pixels / aspect)).astype(jnp.int32)
    fits = (0 < widths) & (widths <= width) & (0 < heights) & (heights <= height)
    first = jnp.argmax(fits, axis=0)[None]
    box_width, box_height = (jnp.take_along_axis(sides, first, 0)[0] for sides in (widths, heights))
    left = jnp.floor(position[0] * (width - box_width + 1)).astype(jnp.int32)
    upper = jnp.floor(position[1] * (height - box_height + 1)).astype(jnp.int32)
    return jnp.stack([left, upper, left + box_width, upper + box_height], -1), fits.any(0)


def inside(box: jax.Array, height: int, width: int) -> jax.Array:
    """Returns which pixels are inside rectangles.

    >>> inside(jnp.array([[1, 0, 3, 1]]), 2, 4).astype(int).tolist()
    [[[0, 1, 1, 0], [0, 0, 0, 0]]]

    Args:
      box: int32 [B,4].
      height: H, height of the images in pixels.
      width: W, width of the images in pixels.

    Returns:
      bool [B,H,W].
    """
    left, upper, right, lower = (box[:, index, None, None] for index in range(4))
    x, y = jnp.arange(width), jnp.arange(height)[:, None]
    return (left <= x) & (x < right) & (upper <= y) & (y < lower)


def area(box: jax.Array) -> jax.Array:
    """Returns the number of pixels in rectangles.

    >>> area(jnp.array([[1, 0, 3, 4]])).tolist()
    [8]

    Args:
      box: int32 [B,4].

    Returns:
      int32 [B].
    """
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
