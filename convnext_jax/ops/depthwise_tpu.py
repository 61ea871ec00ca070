"""The depthwise convolution on a TPU, as products with banded matrices in its matrix units.

TPU's compiler runs a grouped convolution with one channel a group in the vector unit, a multiply-add for each tap: by
its own model 42% of a training step of ConvNeXt-T. The matrix units do hundreds of times as many in a cycle, so they
may as well multiply by zeros. A map is cut into strips of whole rows with about as many pixels as a matrix unit has
rows. In each channel a strip of the output is then a sum over a few strips of the input, each times a banded matrix:
a convolution over strips, with channels as groups and the pixels of a strip as their features. A small map is one
strip. The matrices are themselves a product, of the kernel with a table of zeros and ones. Modeled cycles beside those
of the grouped convolution are in benchmarks/notes.md.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_UNIT = 128  # rows and columns of a matrix unit
_ONE_STRIP = 256  # a map of up to this many pixels is one strip
# With more numbers than these the matrices do not fit the chip's fast memory, and copying them takes most of the time.
_MOST_NUMBERS = 20_000_000


def suits_strips(x: jax.Array, size: int, devices: int) -> bool:
    """Returns whether `strip_conv` is the faster, by the compiler's model.

    For small kernels, and where the matrices cost more than the images, it is not. In float32 the products would be
    rounded to bfloat16.

    Args:
      x: [B,H,W,C].
      size: side of the kernel.
      devices: that the batch is split over.
    """
    if x.dtype != jnp.bfloat16 or not 5 <= size <= 15 or x.shape[2] > _UNIT:
        return False
    strips = _Strips.of(x.shape[1], x.shape[2], size)
    numbers = (2 * strips.reach + 1) * strips.pixels**2 * x.shape[3]
    # The matrix of a map that is one strip grows with the square of its pixels.
    fewest = max(16, strips.pixels // 6 if strips.count == 1 else 0)
    return numbers <= _MOST_NUMBERS and x.shape[0] >= fewest * devices


class _Strips(NamedTuple):
    """How a map is cut: rows of a strip, number of strips, pixels of a strip, and strips away that an input may be."""

    rows: int
    count: int
    pixels: int
    reach: int

    @classmethod
    def of(cls, height: int, width: int, size: int) -> "_Strips":
        """The strips of a map for kernels of a size."""
        rows = height if height * width <= _ONE_STRIP else min(height, max(1, _UNIT // width))
        count = math.ceil(height / rows)
        return cls(rows, count, rows * width, math.ceil(size // 2 / rows) if count > 1 else 0)


def strip_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution with zeros around the map.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C], k odd.

    Returns:
      [B,H,W,C]
    """
    batch, height, width, channels = x.shape
    rows, strips, pixels, reach = _Strips.of(height, width, kernel.shape[0])
    taps = kernel.astype(x.dtype).reshape(-1, channels)
    where = _tap_table(kernel.shape[0], rows, width, reach)
    one = (where[..., None] == jnp.arange(len(taps))).astype(x.dtype)
    if strips == 1:
        bands = jnp.einsum("pqt,tc->cpq", one[0], taps, preferred_element_type=x.dtype)
        flat = x.reshape(batch, pixels, channels)
        y = jnp.einsum("bpc,cpq->bqc", flat, bands, preferred_element_type=x.dtype)
        return y.reshape(x.shape)
    bands = jnp.einsum("spqt,tc->spcq", one, taps, preferred_element_type=x.dtype)
    padded = jnp.pad(x, ((0, 0), (0, strips * rows - height), (0, 0), (0, 0)))
    y = jax.lax.conv_general_dilated(
        padded.reshape(batch, strips, pixels, channels).swapaxes(2, 3).reshape(batch, strips, -1),
        bands.reshape(2 * reach + 1, pixels, -1),
        window_strides=(1,),
        padding=[(reach, reach)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
    )
    y = y.reshape(batch, strips, channels, pixels).swapaxes(2, 3)
    return y.reshape(batch, strips * rows, width, channels)[:, :height]


def _tap_table(size: int, rows: int, width: int, reach: int) -> jax.Array:
    """Returns which tap of the kernel connects two pixels, -1 if none does.

    Args:
      size: side of the kernel.
      rows: of a strip.
      width: of the map.
      reach: how many strips away a pixel of the input may be.

    Returns:
      int32 [2 reach + 1, pixels, pixels] for the strips of the input, their pixels and those of the output.
    """
    strip, row, column, out_row, out_column = jnp.ix_(
        jnp.arange(-reach, reach + 1), *[jnp.arange(side) for side in (rows, width, rows, width)]
    )
    down = strip * rows + row - out_row + size // 2
    across = column - out_column + size // 2
    inside = (down >= 0) & (down < size) & (across >= 0) & (across < size)
    return jnp.where(inside, down * size + across, -1).reshape(2 * reach + 1, rows * width, rows * width)
