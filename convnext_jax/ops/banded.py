"""Depthwise convolution as one matrix for each channel, for CPUs and small maps.

On a map of n pixels a convolution is a banded n x n (block Toeplitz) matrix. On a small map most of it lies
inside the band of a 7x7 kernel, and a matrix product is what a processor does fastest; so are both of its
gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np


def banded_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution, zeros around the map; the gradient of autodiff is as fast.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    batch, height, width, channels = x.shape
    size = kernel.shape[0]
    rows, columns = _band(height, size), _band(width, size)
    # matrix[h,w,r,s] is the weight of input pixel (h,w) in output pixel (r,s): kernel[h-r+p, w-s+p] or 0.
    matrix = jnp.einsum("ijc,hri,wsj->chwrs", kernel, rows, columns, precision="highest")
    matrix = matrix.reshape(channels, height * width, height * width)
    y = jnp.einsum("bpc,cpq->bqc", x.reshape(batch, height * width, channels), matrix)
    return y.reshape(x.shape)


def _band(length: int, size: int) -> np.ndarray:
    """band[h,r,i] = 1 where input h meets output r at tap i of the kernel: h - r + size // 2 == i."""
    h, r, i = np.ogrid[:length, :length, :size]
    return (h - r + size // 2 == i).astype(np.float32)
