"""Depthwise convolution by the matrix that it is, for CPUs and small maps.

On a map of n pixels the convolution of a channel is a banded n x n (block Toeplitz) matrix, and on a small map most
of it lies inside the band of a 7x7 kernel: nothing is lost by leaving out padding and shifts. Its product with a map is
written as n multiply-adds of whole rows of channels, which lie next to each other in memory; as matrix products, one a
channel, the map would have to be transposed there and back (twice as long at 2x2 pixels). Matrix products are better
from 7x7 pixels on, where a pixel's terms no longer fit the registers, and for the kernel's gradient, a sum over the
batch.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Up to this many pixels rows of channels are multiplied and added, beyond them matrices.
_PIXELS_IN_ROWS = 36


def banded_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution, zeros around the map.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    return _multiply(x, _matrix(kernel, *x.shape[1:3]))


def banded_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Gradient of `banded_conv` by its kernel.

    Args:
      x: [B,H,W,C].
      grad: [B,H,W,C], gradient by the output.
      size: k, odd.

    Returns:
      [k,k,C]
    """
    batch, height, width, channels = x.shape
    pixels = (batch, height * width, channels)
    by_matrix = jnp.einsum("bpc,bqc->pqc", x.reshape(pixels), grad.reshape(pixels))
    kernel = jax.ShapeDtypeStruct((size, size, channels), x.dtype)
    (by_kernel,) = jax.linear_transpose(lambda kernel: _matrix(kernel, height, width), kernel)(by_matrix)
    return by_kernel


def _matrix(kernel: jax.Array, height: int, width: int) -> jax.Array:
    """[p,q,C], the weight of input pixel p in output pixel q: from (h,w) to (r,s) kernel[h-r+k//2, w-s+k//2] or 0."""
    size, channels = kernel.shape[0], kernel.shape[-1]
    rows, columns = _band(height, size), _band(width, size)
    matrix = jnp.einsum("ijc,hri,wsj->hwrsc", kernel, rows, columns, precision="highest")
    return matrix.reshape(height * width, height * width, channels)


def _multiply(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """``y[b,q,c] = sum over p of x[b,p,c] matrix[p,q,c]``, on maps."""
    batch, height, width, channels = x.shape
    pixels = height * width
    x_pixels = x.reshape(batch, pixels, channels)
    if pixels > _PIXELS_IN_ROWS:
        return jnp.einsum("bpc,pqc->bqc", x_pixels, matrix).reshape(x.shape)
    matrix = jax.lax.optimization_barrier(matrix)  # or XLA computes its elements again for each sample
    total = jnp.zeros((), x.dtype)
    for p in range(pixels):
        total += x_pixels[:, p : p + 1] * matrix[p]
    return total.reshape(x.shape)


def _band(length: int, size: int) -> np.ndarray:
    """band[h,r,i] = 1 where input h meets output r at tap i of the kernel: h - r + size // 2 == i."""
    h, r, i = np.ogrid[:length, :length, :size]
    return (h - r + size // 2 == i).astype(np.float32)
