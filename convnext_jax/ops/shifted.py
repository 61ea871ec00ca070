"""Depthwise convolution as a sum of shifted maps, for CPUs and maps of any size.

XLA turns a sum of products of shifted slices into one loop over the channels in vector registers; its own grouped
convolution is far slower on a CPU. `convnext_jax.ops.depthwise` keeps what follows out of these loops
(`convnext_jax.ops.cpu`).

A window of all channels and the kernel do not fit the fastest cache together. So the convolution lays the map out in
groups of as many channels as a register has, which fit: 1.3 to 2 times as fast, with the transposing there and back
(benchmarks/notes.md). And it sums the kernel's rows apart, since in one sum of all taps each addition waits for the one
before. For the kernel's gradient groups gain nothing. There it matters how many terms go into one loop: with fewer than
about sixteen XLA's code is several times slower, and so it is where the slices of a window are not materialised first.
"""

import functools
import math

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import unfused

# Channels of a group: float32 values of a register of AVX2.
_GROUP = 8
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
    padded = _to_groups(_pad(x, kernel.shape[0] // 2))
    taps = _to_groups(kernel[None])[0, :, :, :, None, None]  # [G,k,k,1,1,g]
    return _from_groups(_sum_of_taps(padded, taps))


# A call, or XLA would save the transposing and leave the channels together in memory.
@unfused
def _sum_of_taps(padded: jax.Array, taps: jax.Array) -> jax.Array:
    """[B,G,H+k-1,W+k-1,g] and [G,k,k,1,1,g] -> [B,G,H,W,g]."""
    size = taps.shape[1]
    height, width = (length - size + 1 for length in padded.shape[2:4])

    def row(i: int) -> jax.Array:
        terms = [padded[:, :, i : i + height, j : j + width] * taps[:, i, j] for j in range(size)]
        return functools.reduce(jnp.add, terms)

    return functools.reduce(jnp.add, map(row, range(size)))


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


def _to_groups(x: jax.Array) -> jax.Array:
    """[B,H,W,C] -> [B,G,H,W,g]; one group of all channels where they do not divide."""
    batch, height, width, channels = x.shape
    group = _GROUP if channels % _GROUP == 0 else channels
    return x.reshape(batch, height, width, channels // group, group).transpose(0, 3, 1, 2, 4)


def _from_groups(x: jax.Array) -> jax.Array:
    """[B,G,H,W,g] -> [B,H,W,C]."""
    batch, groups, height, width, group = x.shape
    return x.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, groups * group)


def _pad(x: jax.Array, margin: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
