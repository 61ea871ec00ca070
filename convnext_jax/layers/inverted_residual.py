"""The inverted residual block of MobileNetV2 and EfficientNet, and how their widths are rounded."""

import functools
from collections.abc import Callable

import jax
from flax import nnx

from convnext_jax.layers.conv_norm import ConvNorm
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.squeeze_excitation import SqueezeExcitation
from convnext_jax.layers.stochastic import BranchScales, add_branch
from convnext_jax.precision import Precision


def round_channels(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8, and the next one if that took more than a tenth away.

    >>> [round_channels(channels) for channels in (3, 11, 12, 11.9 * 1.6)]
    [8, 16, 16, 24]

    Reference:
      ``_make_divisible`` of torchvision, from TensorFlow's MobileNets.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class InvertedResidual(nnx.Module):
    """1x1 to many channels, depthwise, squeeze-and-excitation, 1x1 to few channels, residual where the shape stays.

    Each convolution has a norm, and all but the last an activation.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      outputs: channels that they become.
      expansion: channels inside over channels of the map; 1 leaves the first convolution out.
      size: side of the depthwise window, in pixels.
      stride: of the depthwise convolution.
      squeezed: channels inside the squeeze-and-excitation; 0 leaves it out.
      activation: of the block.
      momentum: of the norms.
      epsilon: of the norms.
      precision: what the block computes in.

    Reference:
      Sandler et al., `MobileNetV2 <https://arxiv.org/abs/1801.04381>`_, 2018; with squeeze-and-excitation Tan et al.,
      `MnasNet <https://arxiv.org/abs/1807.11626>`_, 2019.
    """

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        *,
        expansion: int,
        size: int,
        stride: int,
        squeezed: int,
        activation: Callable[[jax.Array], jax.Array],
        momentum: float,
        epsilon: float,
        precision: Precision,
    ) -> None:
        for_expand, for_depthwise, for_squeeze, for_project = init.spawn(4)
        hidden = expansion * inputs
        conv_norm = functools.partial(ConvNorm, momentum=momentum, epsilon=epsilon)
        self.expand = conv_norm(for_expand, inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = conv_norm(for_depthwise, hidden, hidden, size, stride=stride, depthwise=True)
        self.squeeze = SqueezeExcitation(for_squeeze, hidden, squeezed, activation=activation) if squeezed else None
        self.project = conv_norm(for_project, hidden, outputs, 1)
        self.branches = int(stride == 1 and inputs == outputs)
        self.activation = activation
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),outputs]; ``scales`` has the branch's, if any, [B]."""
        branch = x.astype(self.precision.compute)
        if self.expand is not None:
            branch = self.activation(self.expand(branch, training=training))  # [B,H,W,hidden]
        branch = self.activation(self.depthwise(branch, training=training))
        if self.squeeze is not None:
            branch = self.squeeze(branch)
        branch = self.project(branch, training=training)
        if not self.branches:
            return branch.astype(self.precision.residual)
        return add_branch(x, branch, scales[0] if scales else None)
