"""Pooling over windows and over whole maps."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.ops.convolution import Padding
from convnext_jax.ops.max_pool import tiled_max_pool


def max_pool(x: jax.Array, size: int, *, stride: int, padding: int | Padding = 0, partial: bool = False) -> jax.Array:
    """Returns the largest value of each window.

    >>> max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1), 2, stride=2).item()
    3.0

    Args:
      x: [B,H,W,C].
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: pixels around the map that never are the largest, on each side or ``((above, below), (left, right))``.
      partial: whether pixels on the right and at the bottom that fill no window make one that reaches beyond the map,
        as with PyTorch's ``ceil_mode``. The stride is at most the size then.

    Returns:
      [B,H',W',C] with ``H' = (H + pixels above and below - size) // stride + 1``, rounded up if ``partial``.
    """
    if partial:
        (above, below), (left, right) = _sides(padding)
        below += -(x.shape[1] + above + below - size) % stride
        right += -(x.shape[2] + left + right - size) % stride
        padding = (above, below), (left, right)
    if size == stride and _sides(padding) == ((0, 0), (0, 0)):
        return tiled_max_pool(x, size)
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


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
    """Returns the means of size x size windows that cover the map, whatever its size.

    Window i of a side of n pixels begins at ``floor(i n / size)`` and ends before ``ceil((i + 1) n / size)``, as
    PyTorch's do. A map of the size stays as it is, and pixels of a smaller one are repeated.

    >>> adaptive_average_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 2)[0, :, :, 0].tolist()
    [[2.0, 3.0], [5.0, 6.0]]

    Args:
      x: [B,H,W,C].
      size: side of the result, in pixels.

    Returns:
      [B,size,size,C] in the dtype of x; the sums are float32.
    """
    mean = x.astype(jnp.float32)
    for axis in (1, 2):
        side = x.shape[axis]
        if side != size:
            ends = [(index * side // size, -(-(index + 1) * side // size)) for index in range(size)]
            windows = [jax.lax.slice_in_dim(mean, start, end, axis=axis).mean(axis) for start, end in ends]
            mean = jnp.stack(windows, axis)
    return mean.astype(x.dtype)


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


class MaxPool(nnx.Module):
    """`max_pool` as a layer, for use between stages."""

    def __init__(self, size: int, *, stride: int, partial: bool = False) -> None:
        self.size = size
        self.stride = stride
        self.partial = partial

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,C] -> [B,H',W',C], the same with and without training."""
        del training
        return max_pool(x, self.size, stride=self.stride, partial=self.partial)


def _sides(padding: int | Padding) -> Padding:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding


def _windows(
    size: int, stride: int, padding: int | Padding
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    return (1, size, size, 1), (1, stride, stride, 1), ((0, 0), *_sides(padding), (0, 0))
