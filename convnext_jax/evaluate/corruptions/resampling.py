"""Filters and resampling of one image, in float32, by sums whose order does not depend on the batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def sum_of_shifts(padded: jax.Array, rows: jax.Array, columns: jax.Array, weights: jax.Array, like: jax.Array):
    """Returns the weighted sum of parts of an image, ``sum_t weights[t] * padded[rows[t]:, columns[t]:]``.

    Args:
      padded: float32 [P,Q,C].
      rows: the first row of each part, int32 [T].
      columns: the first column of each part, int32 [T].
      weights: float32 [T].
      like: an image of the size of the parts, [H,W,C].

    Returns:
      float32 [H,W,C].
    """

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        row, column, weight = tap
        return total + weight * jax.lax.dynamic_slice(padded, (row, column, 0), like.shape), None

    return jax.lax.scan(add, jnp.zeros(like.shape, jnp.float32), (rows, columns, weights))[0]


def gaussian_filter(image: jax.Array, weights: jax.Array) -> jax.Array:
    """Filters along rows and columns with a kernel of 2 R + 1 weights. Beyond an edge the image repeats it.

    Args:
      image: float32 [H,W,C].
      weights: float32 [2R+1].
    """
    radius = len(weights) // 2
    taps, zeros = jnp.arange(2 * radius + 1), jnp.zeros(2 * radius + 1, jnp.int32)
    rows = jnp.pad(image, ((radius, radius), (0, 0), (0, 0)), mode="edge")
    image = sum_of_shifts(rows, taps, zeros, weights, image)
    columns = jnp.pad(image, ((0, 0), (radius, radius), (0, 0)), mode="edge")
    return sum_of_shifts(columns, zeros, taps, weights, image)


def along_columns(matrix: jax.Array, image: jax.Array) -> jax.Array:
    """Multiplies each column of an image by a matrix, in full float32 on every device.

    Args:
      matrix: float32 [P,H].
      image: float32 [H,W,C].

    Returns:
      float32 [P,W,C].
    """
    return jnp.einsum("ph,hwc->pwc", matrix, image, precision=jax.lax.Precision.HIGHEST)


def along_rows(matrix: jax.Array, image: jax.Array) -> jax.Array:
    """Multiplies each row of an image by a matrix, float32 [Q,W]; see `along_columns`."""
    return jnp.einsum("qw,hwc->hqc", matrix, image, precision=jax.lax.Precision.HIGHEST)


Fold = Callable[[jax.Array, int], jax.Array]  # indices, some of them outside of [0, size), and the size, to indices


def repeat_edge(index: jax.Array, size: int) -> jax.Array:
    """``aaaa|abcd|dddd``."""
    return jnp.clip(index, 0, size - 1)


def reflect(index: jax.Array, size: int) -> jax.Array:
    """``dcb|abcd|cba``: the edge is not repeated."""
    index = index % (2 * size - 2)
    return jnp.minimum(index, 2 * size - 2 - index)


def mirror(index: jax.Array, size: int) -> jax.Array:
    """``dcba|abcd|dcba``: the edge is repeated."""
    index = index % (2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


def bilinear(image: jax.Array, y: jax.Array, x: jax.Array, fold: Fold = repeat_edge) -> jax.Array:
    """Returns an image at points between its pixels, interpolated bilinearly.

    >>> bilinear(jnp.array([[[0.0], [8.0]]]), jnp.zeros((1, 3)), jnp.array([[-1.0, 0.25, 1.0]])).ravel().tolist()
    [0.0, 2.0, 8.0]

    Args:
      image: float32 [H,W,C].
      y: in pixels from the center of the first row, float32 [P,Q].
      x: in pixels from the center of the first column, float32 [P,Q].
      fold: what is beyond the edges.

    Returns:
      float32 [P,Q,C].
    """
    height, width = image.shape[:2]
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    rows, columns = (
        (fold(first, size), fold(first + 1, size))
        for first, size in ((top.astype(jnp.int32), height), (left.astype(jnp.int32), width))
    )
    upper, lower = (image[row, columns[0]] * (1 - right) + image[row, columns[1]] * right for row in rows)
    return upper * (1 - down) + lower * down
