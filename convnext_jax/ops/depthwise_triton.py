"""The programs of the depthwise convolution for NVIDIA GPUs, and how they divide the work.

A 7x7 convolution does 49 multiply-adds for each value that it reads and writes: on an H100 that binds the vector units
about as tightly as the memory, and reading the operand of each tap from the cache anew would bind the cache twice as
tightly. Hence a program keeps a strip of output rows in registers, reads a row of the input once for each horizontal
shift and adds it, times the taps, to each output row that it meets: four multiply-adds a read with eight rows. Triton
cannot shift values between registers; the shifts come from the cache, by masked loads, which put the zeros around the
map too. Channels lie side by side in the threads, so that loads are wide.

The kernel's gradient is the same walk with the kernel's rows in registers in place of the output's. Each program
leaves the sum over its part of the batch and the map; nothing is added atomically, so the bits are the same each time.

Compiled by Triton 3.9 for an H100, with no GPU at hand, the 7x7 programs take at most 96 registers a thread (float32:
128), spill none and load 8 bytes a thread at once (float32: 16).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

# Four values of a row for each of 128 threads, which leaves registers enough for eight rows.
WARPS = 4
_ROW_VALUES = 512
_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How maps are cut into tiles of images x rows x columns x channels; all but the rows are powers of two.

    Attributes:
      shape: [B,H,W,C] of the maps.
      size: k of the kernel.
      channels: of a tile.
      columns: of a tile.
      rows: of a tile, its strip.
      images: of a tile; narrow maps stand side by side.
    """

    shape: tuple[int, ...]
    size: int
    channels: int
    columns: int
    rows: int
    images: int

    @classmethod
    def of(cls, shape: tuple[int, ...], size: int) -> "Tiling":
        """The tiles of maps [B,H,W,C] under a kernel of ``size``."""
        _, height, width, all_channels = shape
        # The fewest idle lanes, then the widest loads.
        channels = min((64, 32, 16), key=lambda block: (-all_channels % block, -block))
        values = _ROW_VALUES // channels
        columns = min(pl.next_power_of_2(width), values)
        rows = math.ceil(height / math.ceil(height / _ROWS))
        return cls(shape, size, channels, columns, rows, values // columns)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Tiles along the batch, height, width and channels."""
        sides = (self.images, self.rows, self.columns, self.channels)
        batch, height, width, channels = (pl.cdiv(*pair) for pair in zip(self.shape, sides, strict=True))
        return batch, height, width, channels

    @property
    def input_rows(self) -> range:
        """The rows of the input that a strip's output meets, by their distance from its first."""
        half = self.size // 2
        return range(self.rows) if self.counts[1] == 1 else range(-half, self.rows + half)

    @property
    def input_shifts(self) -> tuple[int, int]:
        """The kernel's first column that meets the map's, and the one after the last."""
        half, width = self.size // 2, self.shape[2]
        return max(0, half - width + 1), min(self.size, half + width)

    def place(self, tile: tuple[Any, Any, Any, Any]) -> "_Place":
        """Where a tile lies, given its index along each axis."""
        _, _, width, channels = self.shape
        lane = jax.lax.broadcasted_iota(jnp.int32, (self.images * self.columns, 1), 0)
        channel = tile[3] * self.channels + jax.lax.broadcasted_iota(jnp.int32, (1, self.channels), 1)
        image = tile[0] * self.images + jax.lax.div(lane, self.columns)
        column = tile[2] * self.columns + jax.lax.rem(lane, self.columns)
        return _Place(self, image, tile[1] * self.rows, column, channel)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A tile's image and column of each lane [P,1], first row, and channels [1,C']."""

    tiling: Tiling
    image: jax.Array
    row: Any
    column: jax.Array
    channel: jax.Array

    def address(self, row: int, shift: Any) -> tuple[jax.Array, jax.Array]:
        """The places in a map of a row of the strip, shifted sideways, and which of them lie on the map."""
        batch, height, width, channels = self.tiling.shape
        y, x = self.row + row, self.column + shift
        there = (self.image < batch) & (x >= 0) & (x < width) & (y >= 0) & (y < height) & (self.channel < channels)
        return ((self.image * height + y) * width + x) * channels + self.channel, there

    def load(self, ref: Any, row: int, shift: Any) -> jax.Array:
        """A row of the strip, shifted sideways, zeros outside the map: [P,C'] float32."""
        address, there = self.address(row, shift)
        return triton.load(ref.at[address], mask=there, other=0.0).astype(jnp.float32)

    def tap(self, row: int, column: Any) -> tuple[jax.Array, jax.Array]:
        """The places of a tap in a kernel [k,k,C], and which of them are channels."""
        channels = self.tiling.shape[3]
        return (row * self.tiling.size + column) * channels + self.channel, self.channel < channels


def convolve_program(tiling: Tiling, x_ref: Any, kernel_ref: Any, y_ref: Any) -> None:
    """One tile of the convolution of x [B,H,W,C] by a kernel [k,k,C] float32; all arrays flat."""
    place = tiling.place(_unravel(pl.program_id(0), tiling.counts))
    half, rows = tiling.size // 2, tiling.rows

    def add_column(j: Any, totals: list[jax.Array]) -> list[jax.Array]:
        taps = []
        for i in range(tiling.size):
            address, there = place.tap(i, j)
            taps.append(triton.load(kernel_ref.at[address], mask=there, other=0.0))
        totals = list(totals)
        for row in tiling.input_rows:
            values = place.load(x_ref, row, j - half)
            for out in range(max(0, row - half), min(rows, row + half + 1)):
                totals[out] += values * taps[row - out + half]
        return totals

    zeros = jnp.zeros((tiling.images * tiling.columns, tiling.channels), jnp.float32)
    totals = jax.lax.fori_loop(*tiling.input_shifts, add_column, [zeros] * rows)
    for row, total in enumerate(totals):
        address, there = place.address(row, 0)
        triton.store(y_ref.at[address], total.astype(y_ref.dtype), mask=there)


def kernel_gradient_program(tiling: Tiling, strips: int, x_ref: Any, grad_ref: Any, partial_ref: Any) -> None:
    """The kernel's gradient over ``strips`` neighbouring tiles, into its place in [parts,k,k,C] float32; all flat."""
    images, down, across, channels = tiling.counts
    parts = pl.cdiv(images * down, strips)
    part, column, channel = _unravel(pl.program_id(0), (parts, across, channels))
    half, rows, size = tiling.size // 2, tiling.rows, tiling.size

    def sum_column(j: Any, _: None) -> None:
        def add_strip(index: Any, totals: list[jax.Array]) -> list[jax.Array]:
            image, row = _unravel(part * strips + index, (images, down))
            place = tiling.place((image, row, column, channel))
            grads = [place.load(grad_ref, row, 0) for row in range(rows)]
            totals = list(totals)
            for row in tiling.input_rows:
                values = place.load(x_ref, row, j - half)
                for out in range(max(0, row - half), min(rows, row + half + 1)):
                    totals[row - out + half] += values * grads[out]
            return totals

        zeros = jnp.zeros((tiling.images * tiling.columns, tiling.channels), jnp.float32)
        totals = jax.lax.fori_loop(0, strips, add_strip, [zeros] * size)
        place = tiling.place((0, 0, 0, channel))
        for i, total in enumerate(totals):
            address, there = place.tap(i, j)
            address += (part * across + column) * size * size * tiling.shape[3]
            triton.store(partial_ref.at[address], total.sum(0, keepdims=True), mask=there)

    jax.lax.fori_loop(0, size, sum_column, None)


def _unravel(index: Any, counts: tuple[int, ...]) -> tuple[Any, ...]:
    """The index along each axis of the ``index``-th tile; neighbours differ in the last axis.

    A tile past the end lies past the end of the first axis, where nothing is loaded.
    """
    along = []
    for count in reversed(counts[1:]):
        along.append(jax.lax.rem(index, count))
        index = jax.lax.div(index, count)
    return (index, *reversed(along))
