"""Convolution, BatchNorm where it is wanted, ReLU: the block of the networks before residual branches."""

import jax
from flax import nnx

from convnext_jax.layers.convolution import Conv
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.stochastic import BranchScales
from convnext_jax.precision import Precision


class ConvReLU(nnx.Module):
    """Convolution, BatchNorm if there is one, ReLU.

    Args:
      init: draws the kernel.
      inputs: channels of the map.
      outputs: channels that they become.
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: zeros on each side; None keeps the size of a map at stride 1, for a window of an odd side.
      norm: the BatchNorm; None leaves it out.
      bias: whether the convolution has a bias.
      role: what the kernel is for; see `Conv`.
      precision: what is computed in.
    """

    branches = 0  # there is no residual

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        norm: BatchNorm | None = None,
        bias: bool = True,
        role: Role | None = None,
        precision: Precision,
    ) -> None:
        padding = size // 2 if padding is None else padding
        self.conv = Conv(init, inputs, outputs, size, stride=stride, padding=padding, bias=bias, role=role)
        self.norm = norm
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], as the convolution; ``scales`` are none."""
        del scales
        x = self.conv(x.astype(self.precision.compute))
        if self.norm is not None:
            x = self.norm(x, training=training)
        return jax.nn.relu(x).astype(self.precision.residual)
