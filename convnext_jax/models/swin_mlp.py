"""A block that mixes space by an MLP over shifted windows, after Swin-MLP.

Liu et al. 2021, "Swin Transformer", arXiv 2103.14030, and ``models/swin_mlp.py`` of microsoft/Swin-Transformer. That a
ConvNeXt has it in place of its own block is this project's reading of one line of a course report, "a swin-mlp module
tried".
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.normalization import make_norm
from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.layers.stochastic import BranchScales, add_branch
from convnext_jax.layers.windows import from_windows, to_windows
from convnext_jax.precision import Precision

WINDOW = 7
HEAD_CHANNELS = 32


class WindowMLP(nnx.Module):
    """One linear layer for each head, from the positions of a window to the positions of the same window."""

    def __init__(self, init: Initializer, heads: int) -> None:
        self.kernel = init.kernel((WINDOW**2, heads * WINDOW**2), Role.WINDOW)
        self.bias = constant(heads * WINDOW**2, 0.0, Role.BIAS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[windows,49,heads,c] -> [windows,49,heads,c]."""
        heads = x.shape[2]
        kernel = self.kernel[...].astype(x.dtype).reshape(WINDOW**2, heads, WINDOW**2)
        y = jnp.einsum("wphc,phq->wqhc", x, kernel)
        return y + self.bias[...].astype(x.dtype).reshape(heads, WINDOW**2).T[:, :, None]


class SwinMLPBlock(nnx.Module):
    """Norm, window MLP, residual; norm, wide layer, activation, narrow layer, residual.

    Args:
      init: draws the kernels.
      channels: of the map.
      shifted: whether the windows start half a window earlier.
      expansion: channels inside the second branch over channels outside.
      norm: "layer" or "batch".
      activation: one of `ACTIVATIONS`.
      precision: what the block computes in.
    """

    branches = 2

    def __init__(
        self,
        init: Initializer,
        channels: int,
        *,
        shifted: bool,
        expansion: int,
        norm: str,
        activation: str,
        precision: Precision,
    ) -> None:
        spatial, expand, project = init.spawn(3)
        # Heads of 32 channels if these divide evenly, else the next larger heads that do.
        self.heads = next(heads for heads in range(max(channels // HEAD_CHANNELS, 1), 0, -1) if channels % heads == 0)
        self.spatial_norm = make_norm(norm, channels)
        self.spatial = WindowMLP(spatial, self.heads)
        self.norm = make_norm(norm, channels)
        self.expand = Linear(expand, channels, expansion * channels)
        self.project = Linear(project, expansion * channels, channels)
        self.activation = activation
        self.shifted = shifted
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; ``scales`` has those of the two branches, [B] each."""
        first, second = scales or (None, None)
        x = add_branch(x, self._mix(self.spatial_norm(x.astype(self.dtype), training=training)), first)
        branch = ACTIVATIONS[self.activation](
            self.expand(self.norm(x.astype(self.dtype), training=training))
        )  # [B,H,W,4C]
        return add_branch(x, self.project(branch), second)

    def _mix(self, x: jax.Array) -> jax.Array:
        _, height, width, channels = x.shape
        rows, columns = self._padding(height), self._padding(width)
        x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
        windows = to_windows(x, WINDOW)  # [windows,49,C]
        mixed = self.spatial(windows.reshape(-1, WINDOW**2, self.heads, channels // self.heads))
        x = from_windows(mixed.reshape(windows.shape), WINDOW, x.shape[1:3])
        return x[:, rows[0] : rows[0] + height, columns[0] : columns[0] + width]

    def _padding(self, size: int) -> tuple[int, int]:
        """Returns the zeros before and after an axis that make windows cover it."""
        # A single window that covers the map mixes all of it. Shifted, it would be cut in two.
        before = WINDOW - WINDOW // 2 if self.shifted and size > WINDOW else 0
        return before, math.ceil((before + size) / WINDOW) * WINDOW - before - size
