"""The layer between two stages that halves a map."""

import jax
from flax import nnx

from convnext_jax.layers.convolution import Conv
from convnext_jax.layers.normalization import make_norm
from convnext_jax.layers.parameters import Initializer
from convnext_jax.precision import Precision


class Downsample(nnx.Module):
    """Norm and 2x2 convolution with stride 2.

    Args:
      init: draws the kernel.
      inputs: channels of the map.
      outputs: channels that they become.
      norm: a name in `convnext_jax.layers.normalization.NORMS`.
      precision: what it computes in.
    """

    def __init__(self, init: Initializer, inputs: int, outputs: int, norm: str, precision: Precision) -> None:
        self.norm = make_norm(norm, inputs)
        self.conv = Conv(init, inputs, outputs, 2, stride=2)
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H//2,W//2,outputs]."""
        x = self.norm(x, training=training).astype(self.precision.compute)
        return self.conv(x).astype(self.precision.residual)
