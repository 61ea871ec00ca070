"""A map as windows that do not overlap, and back."""

import typing

import jax
import numpy as np

Array = typing.TypeVar("Array", jax.Array, np.ndarray)


def to_windows(x: Array, size: int) -> Array:
    """Splits maps into windows, row by row.

    >>> to_windows(np.arange(16).reshape(1, 4, 4, 1), 2)[:, :, 0].tolist()
    [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]

    Args:
      x: [B,H,W,C], height and width multiples of the size.
      size: side of a window, in pixels.

    Returns:
      [B windows,size^2,C].
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, size**2, channels)


def from_windows(windows: Array, size: int, map_size: tuple[int, ...]) -> Array:
    """Puts windows together to maps, the inverse of `to_windows`.

    >>> x = np.arange(16).reshape(1, 4, 4, 1)
    >>> np.array_equal(from_windows(to_windows(x, 2), 2, (4, 4)), x)
    True

    Args:
      windows: [B windows,size^2,C].
      size: side of a window, in pixels.
      map_size: height and width of the maps, multiples of the size.

    Returns:
      [B,H,W,C].
    """
    height, width = map_size
    x = windows.reshape(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])
