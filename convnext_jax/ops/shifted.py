"""Depthwise convolution as a sum of shifted maps, for CPUs and maps of any size.

XLA turns a sum of products of shifted slices into one loop over the channels in vector registers, near the
speed of the caches; its own grouped convolution is far slower on a CPU. How many terms go into one loop
matters: with fewer than about sixteen XLA's code for the kernel gradient is several times slower, and so it
is where the slices of a window are not materialised first. `convnext_jax.ops.depthwise` keeps what follows out of these
loops (`convnext_jax.ops.unfused`).
"""

import math

import jax
import jax.numpy as jnp

_TERMS = 16

_materialise = jax.lax.optimization_barrier


def shifted_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution, zeros around the map.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    size = kernel.shape[0]
    height, width = x.shape[1:3]
    padded = _materialise(_pad(x, size // 2))
    total = jnp.zeros((), x.dtype)
    for first in range(0, size, 2):  # two rows of the kernel a loop
        rows = range(first, min(first + 2, size))
        terms = [padded[:, i : i + height, j : j + width] * kernel[i, j] for i in rows for j in range(size)]
        total = _materialise(sum(terms, total))
    return total


def shifted_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Gradient of `shifted_conv` by its kernel, ``sum over b,h,w of x[b,h+i-p,w+j-p,c] grad[b,h,w,c]``.

    Args:
      x: [B,H,W,C].
      grad: [B,H,W,C], gradient by the output.
      size: k, odd.

    Returns:
      [k,k,C]
    """
    batch, height, width, channels = x.shape
    columns = math.ceil(width / math.ceil(width / _TERMS))
    # Few enough rows for two turns of the loop: XLA unrolls a single one into the sum that follows, then writes out
    # every slice and every tap, and is many times slower.
    rows = max(2, math.ceil(_TERMS / columns))
    across, down = math.ceil(width / columns), math.ceil(height / rows)
    extra = ((0, 0), (0, down * rows - height), (0, across * columns - width), (0, 0))
    grad = jnp.pad(grad, extra)
    padded = jnp.pad(_pad(x, size // 2), extra)

    def add_window(index: jax.Array, total: jax.Array) -> jax.Array:
        top, left = index // across * rows, index % across * columns
        window = (batch, rows + size - 1, columns + size - 1, channels)
        near = jax.lax.dynamic_slice(padded, (0, top, left, 0), window)
        centre = jax.lax.dynamic_slice(grad, (0, top, left, 0), (batch, rows, columns, channels))
        near, centre = _materialise((near, centre))
        for a in range(rows):
            for b in range(columns):
                total += near[:, a : a + size, b : b + size] * centre[:, a : a + 1, b : b + 1]
        return total

    # One sum for each sample keeps the batch an ordinary axis, which may be sharded.
    zeros = jnp.zeros_like(padded[:, :1, :1], shape=(batch, size, size, channels))
    return jax.lax.fori_loop(0, across * down, add_window, zeros).sum(0)


def _pad(x: jax.Array, margin: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
