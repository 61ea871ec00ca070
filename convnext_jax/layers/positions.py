"""Positions of tokens: a learned table and its resizing, and the sinusoidal one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def resize_positions(table: jax.Array, grid: tuple[int, int], *, others: int = 0) -> jax.Array:
    """Resizes the positions of a square grid to another grid, bicubically.

    Args:
      table: float32 [others + side^2,C].
      grid: rows and columns of the other grid.
      others: positions before those of the grid, such as a class token's. They stay.

    Returns:
      float32 [others + rows columns,C].
    """
    side = round((table.shape[0] - others) ** 0.5)
    if grid == (side, side):
        return table
    positions = table[others:].reshape(side, side, -1)
    positions = jax.image.resize(positions, (*grid, table.shape[1]), "cubic")
    return jnp.concatenate([table[:others], positions.reshape(-1, table.shape[1])])


@functools.cache
def sinusoidal_positions(count: int, channels: int) -> np.ndarray:
    """Returns a position for each place of a sequence, of sines and cosines with growing wavelengths.

    ``sin(p / 10000^(c / C))`` in the even channels c, and the cosine of the same in the next one.

    >>> sinusoidal_positions(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]

    Args:
      count: number of places.
      channels: C.

    Returns:
      float32 [count,C].

    Reference:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017, section 3.5.
    """
    wavelengths = 10000.0 ** (np.arange(channels) // 2 * 2 / channels)
    angles = (np.arange(count)[:, None] / wavelengths).astype(np.float32)
    return np.where(np.arange(channels) % 2, np.cos(angles), np.sin(angles))
