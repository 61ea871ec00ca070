"""Convolution and BatchNorm, as most networks of the years 2015 to 2020 have them together."""

import jax
from flax import nnx

from convnext_jax.layers.convolution import Conv, DepthwiseConv
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role


class ConvNorm(nnx.Module):
    """Convolution without a bias, and BatchNorm. Zeros around the map keep its size at stride 1.

    Args:
      init: draws the kernel.
      inputs: channels of the map.
      outputs: channels that they become.
      size: side of the window, in pixels, odd.
      stride: distance between windows, in pixels.
      depthwise: whether each channel has its own kernel. Then there are as many outputs as inputs.
      role: what the kernel is for; see `Conv`.
      momentum: of the norm; see `BatchNorm`.
      epsilon: of the norm.
    """

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        role: Role | None = None,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
    ) -> None:
        if depthwise:
            self.conv = DepthwiseConv(init, outputs, size, stride=stride, bias=False)
        else:
            self.conv = Conv(init, inputs, outputs, size, stride=stride, padding=size // 2, bias=False, role=role)
        self.norm = BatchNorm(outputs, momentum=momentum, epsilon=epsilon)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], H' = ceil(H / stride)."""
        return self.norm(self.conv(x), training=training)
