"""A light segmentation head: a feature pyramid whose levels are added up."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.conv_relu import ConvReLU
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.resizing import resize_map
from convnext_jax.layers.stochastic import dropout
from convnext_jax.precision import Precision

FPN_CHANNELS = 128


class FeaturePyramidHead(nnx.Module):
    """Logits for each pixel of the largest map, from the maps of all stages.

    1x1 convolutions bring the maps to one width. From the last to the first, each is enlarged and added to the one
    before it. A 3x3 convolution smooths each sum, all are enlarged to the size of the first and added up, and after one
    more 3x3 convolution a linear layer returns the logits. Each 3x3 convolution has BatchNorm and ReLU.

    Args:
      init: draws the kernels.
      inputs: channels of the maps, from the first stage to the last.
      num_classes: number of logits.
      channels: the common width.
      dropout: rate of the dropout before the linear layer.
      precision: what the head computes in.

    Reference:
      Lin et al., `Feature Pyramid Networks <https://arxiv.org/abs/1612.03144>`_, 2017; Kirillov et al., `Panoptic
      Feature Pyramid Networks <https://arxiv.org/abs/1901.02446>`_, 2019, whose levels are added up like these.
    """

    def __init__(
        self,
        init: Initializer,
        inputs: Sequence[int],
        num_classes: int,
        *,
        channels: int = FPN_CHANNELS,
        dropout: float = 0.0,
        precision: Precision,
    ) -> None:
        for_lateral, for_smooth, for_merge, for_head = init.spawn(4)
        count = len(inputs)
        self.lateral = nnx.List(
            [Conv(own, width, channels, 1) for own, width in zip(for_lateral.spawn(count), inputs, strict=True)]
        )
        self.smooth = nnx.List(
            [conv_norm_relu(own, channels, channels, 3, precision) for own in for_smooth.spawn(count)]
        )
        self.merge = conv_norm_relu(for_merge, channels, channels, 3, precision)
        self.head = Linear(for_head, channels, num_classes, role=Role.HEAD)
        self.dropout = dropout
        self.precision = precision

    def __call__(self, maps: Sequence[jax.Array], *, key: jax.Array | None = None) -> jax.Array:
        """Maps [B,H_i,W_i,inputs[i]] -> float32 [B,H_0,W_0,num_classes]; a key means training."""
        training, compute = key is not None, self.precision.compute
        levels = [lateral(x.astype(compute)) for lateral, x in zip(self.lateral, maps, strict=True)]
        add_from_above(levels)
        smooth = (layer(x, training=training) for layer, x in zip(self.smooth, levels, strict=True))
        size = levels[0].shape[1], levels[0].shape[2]
        x = functools.reduce(jnp.add, [resize_map(level, size) for level in smooth])
        x = self.merge(x, training=training)
        return self.head(dropout(x.astype(jnp.float32), self.dropout, key))


def conv_norm_relu(init: Initializer, inputs: int, outputs: int, size: int, precision: Precision) -> ConvReLU:
    """Returns a convolution without a bias, BatchNorm and ReLU, as segmentation heads are made of them."""
    return ConvReLU(init, inputs, outputs, size, norm=BatchNorm(outputs), bias=False, precision=precision)


def add_from_above(levels: list[jax.Array]) -> None:
    """Adds to each level of a pyramid the one after it, enlarged, from the last to the first, in place.

    Args:
      levels: [B,H_i,W_i,C] each, the largest first.
    """
    for index in range(len(levels) - 1, 0, -1):
        below = levels[index - 1]
        levels[index - 1] = below + resize_map(levels[index], (below.shape[1], below.shape[2]))
