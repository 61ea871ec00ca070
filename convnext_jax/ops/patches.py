"""Convolutions of stems and downsampling, and dense ones, as matrix products over patches where that is faster.

The gradients of XLA's convolutions of few channels or of stride 2 are slow on a CPU; those of a matrix
product are fast everywhere.
"""

import math

import jax
import jax.numpy as jnp

from convnext_jax.ops.matmul import matmul


def merge_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution over non-overlapping patches; a remainder at the right and bottom edge is left out.

    Args:
      x: [B,H,W,C].
      kernel: [p,p,C,D].

    Returns:
      [B,H//p,W//p,D]
    """
    size = kernel.shape[0]
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    x = x.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return matmul(x.reshape(batch, rows, columns, -1), kernel.reshape(-1, kernel.shape[-1]))


# Values of a window up to which it is written out: an image's three channels for a 7x7 stem, but not a feature map's,
# of which each pixel would be kept k^2 times for the backward pass.
_WINDOW_VALUES = 256


def conv_windows(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Convolution over overlapping windows.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C,D].
      stride: distance of the windows, in pixels.
      padding: zeros on each side, in pixels.

    Returns:
      [B,H',W',D] with H' = (H + 2 padding - k) // stride + 1.
    """
    size = kernel.shape[0]
    if math.prod(kernel.shape[:-1]) > _WINDOW_VALUES:
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=dimensions
        )
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = (x.shape[1] - size) // stride * stride + 1
    columns = (x.shape[2] - size) // stride * stride + 1
    windows = [x[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)]
    return matmul(jnp.concatenate(windows, axis=-1), kernel.reshape(-1, kernel.shape[-1]))
