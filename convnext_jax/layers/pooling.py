"""Pooling over windows and over whole maps."""

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.ops.convolution import Padding


def max_pool(x: jax.Array, size: int, *, stride: int, padding: int | Padding = 0) -> jax.Array:
    """Returns the largest value of each window.

    >>> max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), 2, stride=2).item()
    3.0

    Args:
      x: [B,H,W,C].
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: pixels around the map that never are the largest, on each side or ``((above, below), (left, right))``.

    Returns:
      [B,H',W',C] with ``H' = (H + pixels above and below - size) // stride + 1``.
    """
    lowest = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, lowest, jax.lax.max, *_windows(size, stride, padding))


def average_pool(
    x: jax.Array, size: int, *, stride: int, padding: int | Padding = 0, count_padding: bool = True
) -> jax.Array:
    """Returns the mean of each window.

    >>> average_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), 2, stride=2).item()
    1.5

    Args:
      x: [B,H,W,C].
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: zeros around the map, on each side or ``((above, below), (left, right))``.
      count_padding: whether the zeros count as pixels of the mean, as is PyTorch's default.

    Returns:
      [B,H',W',C] in the dtype of x; the sums are float32.
    """
    windows = _windows(size, stride, padding)
    total = jax.lax.reduce_window(x.astype(jnp.float32), np.float32(0), jax.lax.add, *windows)
    if count_padding:
        return (total / size**2).astype(x.dtype)
    count = jax.lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), np.float32(0), jax.lax.add, *windows)
    return (total / count).astype(x.dtype)


def global_average_pool(x: jax.Array) -> jax.Array:
    """Returns the mean over each map.

    >>> global_average_pool(jnp.ones((2, 3, 3, 4))).shape
    (2, 4)

    Args:
      x: [B,H,W,C].

    Returns:
      float32 [B,C].
    """
    return x.astype(jnp.float32).mean((1, 2))


def _windows(
    size: int, stride: int, padding: int | Padding
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    rows, columns = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    return (1, size, size, 1), (1, stride, stride, 1), ((0, 0), rows, columns, (0, 0))
