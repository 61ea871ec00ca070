"""A block that mixes space by an MLP over shifted windows, after Swin-MLP.

Liu et al. 2021, "Swin Transformer", arXiv 2103.14030, and ``models/swin_mlp.py`` of microsoft/Swin-Transformer. That a
ConvNeXt takes it in place of its own block is this project's reading of a course report's one line, "a swin-mlp module
tried".
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.models.architectures import Architecture
from convnext_jax.layers.drop_path import BranchScales, drop_path
from convnext_jax.layers.layers import (
    Initializer,
    Linear,
    activation,
    initial_constant,
    make_norm,
)

WINDOW = 7
HEAD_CHANNELS = 32


class WindowMLP(nnx.Module):
    """One linear layer for each head, from the positions of a window to the positions of the same window."""

    def __init__(self, init: Initializer, heads: int) -> None:
        self.kernel = init.kernel((WINDOW**2, heads * WINDOW**2))
        self.bias = initial_constant(heads * WINDOW**2, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[windows,49,heads,c] -> [windows,49,heads,c]."""
        heads = x.shape[2]
        kernel = self.kernel[...].astype(x.dtype).reshape(WINDOW**2, heads, WINDOW**2)
        y = jnp.einsum("wphc,phq->wqhc", x, kernel)
        return y + self.bias[...].astype(x.dtype).reshape(heads, WINDOW**2).T[:, :, None]


class SwinMLPBlock(nnx.Module):
    """LayerNorm, window MLP, residual; LayerNorm, wide layer, activation, narrow layer, residual."""

    residuals = 2

    def __init__(self, init: Initializer, channels: int, architecture: Architecture, *, shifted: bool) -> None:
        spatial, expand, project = init.spawn(3)
        # Heads of 32 channels as far as these divide evenly.
        self.heads = next(heads for heads in range(max(channels // HEAD_CHANNELS, 1), 0, -1) if channels % heads == 0)
        self.spatial_norm = make_norm(architecture.norm, channels)
        self.spatial = WindowMLP(spatial, self.heads)
        self.norm = make_norm(architecture.norm, channels)
        self.expand = Linear(expand, channels, architecture.expansion * channels)
        self.project = Linear(project, architecture.expansion * channels, channels)
        self.activation = architecture.activation
        self.shifted = shifted

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; the two branches' scales [B], by drop path."""
        first, second = (None, None) if scales is None else scales
        x = x + drop_path(self._mix(self.spatial_norm(x, training=training)), first)
        branch = activation(self.activation)(self.expand(self.norm(x, training=training)))  # [B,H,W,4C]
        return x + drop_path(self.project(branch), second)

    def _mix(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        rows, columns = self._padding(height), self._padding(width)
        x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
        down, across = x.shape[1] // WINDOW, x.shape[2] // WINDOW
        x = x.reshape(batch, down, WINDOW, across, WINDOW, self.heads, -1).transpose(0, 1, 3, 2, 4, 5, 6)
        x = self.spatial(x.reshape(-1, WINDOW**2, self.heads, channels // self.heads))
        x = x.reshape(batch, down, across, WINDOW, WINDOW, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, down * WINDOW, across * WINDOW, channels)
        return x[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]

    def _padding(self, size: int) -> tuple[int, int]:
        """Zeros before and behind an axis, so that windows cover it; shifted ones begin half a window earlier."""
        # A single window that covers the map mixes all of it: shifted, it would be cut in two.
        before = WINDOW - WINDOW // 2 if self.shifted and size > WINDOW else 0
        return before, math.ceil((before + size) / WINDOW) * WINDOW - before - size
