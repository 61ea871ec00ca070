"""Two algorithms for the depthwise convolution on a CPU: sums of shifted maps, and banded matrices for small maps.

**Shifted sums.** XLA turns a sum of products of shifted slices into one loop over the channels in vector registers. Its
own grouped convolution is far slower on a CPU. A window of all channels and the kernel do not fit the fastest cache
together, so the map is laid out in groups of as many channels as a register holds: 1.3 to 2 times as fast, including
the transpositions (benchmarks/notes.md). With few taps the transpositions take longer than the sums, so the channels
stay together. With very many, a loop goes over the rows of the kernel. The rows are summed separately, since in one sum
of all taps each addition waits for the one before. Groups gain nothing for the kernel's gradient. There the number of
terms in one loop matters: with fewer than about sixteen XLA's code is several times slower, and so it is if the slices
of a window are not materialized first.

**Banded matrices.** On a map of n pixels the convolution of a channel is a banded n x n (block Toeplitz) matrix, and on
a small map most of the matrix lies inside the band. Its product with a map is written as n multiply-adds of whole rows
of channels, which lie next to each other in memory. As matrix products, one a channel, the map would have to be
transposed there and back (twice as long at 2x2 pixels). Matrix products are better from 7x7 pixels on, where the terms
of a pixel no longer fit the registers, and for the kernel's gradient, which sums over the batch.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.ops.cpu import unfused_on_cpu

_GROUP = 8  # channels of a group: the float32 values in a register of AVX2
_TERMS = 16
_ROW_PIXELS = 36  # up to this many pixels rows of channels are multiplied and added; beyond them, matrices

_UNROLLED = 9  # side of the largest kernel whose taps are all written out; beyond it compilation takes too long

_materialize = jax.lax.optimization_barrier


def direct_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution as a sum of shifted maps whose channels stay together, with zeros around the map.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    padded = _pad(x, kernel.shape[0] // 2)
    return _sum_of_taps(padded[:, None], kernel[None, :, :, None, None])[:, 0]


def shifted_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same with the channels in groups: for more taps than `direct_conv`.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    padded = _to_groups(_pad(x, kernel.shape[0] // 2))
    taps = _to_groups(kernel[None])[0, :, :, :, None, None]  # [G,k,k,1,1,g]
    return _from_groups(_sum_of_taps_in_memory(padded, taps))


def _sum_of_taps(padded: jax.Array, taps: jax.Array) -> jax.Array:
    """[B,G,H+k-1,W+k-1,g] and [G,k,k,1,1,g] -> [B,G,H,W,g]."""
    batch, groups, *sides, channels = padded.shape
    size = taps.shape[1]
    height, width = (length - size + 1 for length in sides)

    def row(rows: jax.Array, taps: jax.Array) -> jax.Array:
        """[B,G,H,W+k-1,g] and [G,k,1,1,g] -> [B,G,H,W,g]."""
        return functools.reduce(jnp.add, [rows[:, :, :, j : j + width] * taps[:, j] for j in range(size)])

    if size <= _UNROLLED:
        return functools.reduce(jnp.add, [row(padded[:, :, i : i + height], taps[:, i]) for i in range(size)])

    def add_row(i: jax.Array, total: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, i, height, axis=2)
        return total + row(rows, jax.lax.dynamic_index_in_dim(taps, i, axis=1, keepdims=False))

    zeros = jnp.zeros_like(padded, shape=(batch, groups, height, width, channels))
    return jax.lax.fori_loop(0, size, add_row, zeros)


# A call. Otherwise XLA would skip the transpositions and leave the channels together in memory.
_sum_of_taps_in_memory = unfused_on_cpu(_sum_of_taps)


def shifted_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Gradient of `shifted_conv` by its kernel, ``sum over b,h,w of x[b,h+i-p,w+j-p,c] grad[b,h,w,c]``.

    Args:
      x: [B,H,W,C].
      grad: [B,H,W,C], the gradient by the output.
      size: k, odd.

    Returns:
      [k,k,C]
    """
    batch, height, width, channels = x.shape
    columns = math.ceil(width / math.ceil(width / _TERMS))
    # Few enough rows for two turns of the loop. XLA unrolls a single turn into the sum that follows, writes out every
    # slice and every tap, and is many times slower.
    rows = max(2, math.ceil(_TERMS / columns))
    across, down = math.ceil(width / columns), math.ceil(height / rows)
    extra = ((0, 0), (0, down * rows - height), (0, across * columns - width), (0, 0))
    grad = jnp.pad(grad, extra)
    padded = jnp.pad(_pad(x, size // 2), extra)

    def add_window(index: jax.Array, total: jax.Array) -> jax.Array:
        top, left = index // across * rows, index % across * columns
        window = (batch, rows + size - 1, columns + size - 1, channels)
        near = jax.lax.dynamic_slice(padded, (0, top, left, 0), window)
        center = jax.lax.dynamic_slice(grad, (0, top, left, 0), (batch, rows, columns, channels))
        near, center = _materialize((near, center))
        for a in range(rows):
            for b in range(columns):
                total += near[:, a : a + size, b : b + size] * center[:, a : a + 1, b : b + 1]
        return total

    # With one sum for each sample the batch stays an ordinary axis, which may be sharded.
    zeros = jnp.zeros_like(padded[:, :1, :1], shape=(batch, size, size, channels))
    return jax.lax.fori_loop(0, across * down, add_window, zeros).sum(0)


def _to_groups(x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,G,H,W,g]; one group of all channels if they do not divide evenly."""
    batch, height, width, channels = x.shape
    group = _GROUP if channels % _GROUP == 0 else channels
    return x.reshape(batch, height, width, channels // group, group).transpose(0, 3, 1, 2, 4)


def _from_groups(x: jax.Array) -> jax.Array:
    """[B,G,H,W,g] -> [B,H,W,C]."""
    batch, groups, height, width, group = x.shape
    return x.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, groups * group)


def _pad(x: jax.Array, margin: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))


def banded_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution as products with banded matrices, with zeros around the map.

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
      grad: [B,H,W,C], the gradient by the output.
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
    if pixels > _ROW_PIXELS:
        return jnp.einsum("bpc,pqc->bqc", x_pixels, matrix).reshape(x.shape)
    matrix = _materialize(matrix)  # otherwise XLA computes its elements again for each sample
    total = jnp.zeros((), x.dtype)
    for p in range(pixels):
        total += x_pixels[:, p : p + 1] * matrix[p]
    return total.reshape(x.shape)


def _band(length: int, size: int) -> np.ndarray:
    """band[h,r,i] = 1 where input h meets output r at tap i of the kernel: h - r + size // 2 == i."""
    h, r, i = np.ogrid[:length, :length, :size]
    return (h - r + size // 2 == i).astype(np.float32)
