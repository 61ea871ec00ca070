"""UPerNet: pyramid pooling on top of a feature pyramid, and the auxiliary head that is trained beside it."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.feature_pyramid import add_from_above, conv_norm_relu
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import adaptive_average_pool
from convnext_jax.layers.resizing import resize_map
from convnext_jax.layers.stochastic import dropout
from convnext_jax.precision import Precision

UPERNET_CHANNELS = 512
AUXILIARY_CHANNELS = 256
POOLED_SIZES = (1, 2, 3, 6)


class PyramidPooling(nnx.Module):
    """A map beside its averages over grids of several sizes, merged by a 3x3 convolution.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      channels: of each grid, and of the result.
      precision: what is computed in.

    Reference:
      Zhao et al., `Pyramid Scene Parsing Network <https://arxiv.org/abs/1612.01105>`_, 2017.
    """

    def __init__(self, init: Initializer, inputs: int, channels: int, *, precision: Precision) -> None:
        for_pooled, for_bottleneck = init.spawn(2)
        count = len(POOLED_SIZES)
        self.pooled = nnx.List([conv_norm_relu(own, inputs, channels, 1, precision) for own in for_pooled.spawn(count)])
        self.bottleneck = conv_norm_relu(for_bottleneck, inputs + count * channels, channels, 3, precision)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H,W,channels]."""
        size = x.shape[1], x.shape[2]
        grids = (adaptive_average_pool(x, side) for side in POOLED_SIZES)
        pooled = (layer(grid, training=training) for layer, grid in zip(self.pooled, grids, strict=True))
        beside = [resize_map(grid, size) for grid in pooled]
        return self.bottleneck(jnp.concatenate([x, *beside], -1), training=training)


class UPerNetHead(nnx.Module):
    """Logits for each pixel of the largest map, from the maps of all stages.

    Pyramid pooling of the last map and 1x1 convolutions of the others make the levels of a pyramid. From the last to
    the first, each is enlarged and added to the one before it. A 3x3 convolution smooths each sum but the last, all are
    enlarged to the size of the first, and another 3x3 convolution merges them. Each convolution has BatchNorm and ReLU.

    Args:
      init: draws the kernels.
      inputs: channels of the maps, from the first stage to the last.
      num_classes: number of logits.
      channels: the common width.
      dropout: rate of the dropout before the linear layer.
      precision: what the head computes in.

    Reference:
      Xiao et al., `Unified Perceptual Parsing <https://arxiv.org/abs/1807.10221>`_, 2018, as OpenMMLab's
      mmsegmentation has it and the ConvNeXt papers use it.
    """

    def __init__(
        self,
        init: Initializer,
        inputs: Sequence[int],
        num_classes: int,
        *,
        channels: int = UPERNET_CHANNELS,
        dropout: float = 0.0,
        precision: Precision,
    ) -> None:
        for_pooling, for_lateral, for_smooth, for_merge, for_head = init.spawn(5)
        *before, last = inputs
        self.pooling = PyramidPooling(for_pooling, last, channels, precision=precision)
        inits = for_lateral.spawn(len(before))
        self.lateral = nnx.List(
            [conv_norm_relu(own, width, channels, 1, precision) for own, width in zip(inits, before, strict=True)]
        )
        inits = for_smooth.spawn(len(before))
        self.smooth = nnx.List([conv_norm_relu(own, channels, channels, 3, precision) for own in inits])
        self.merge = conv_norm_relu(for_merge, len(inputs) * channels, channels, 3, precision)
        self.head = Linear(for_head, channels, num_classes, role=Role.HEAD)
        self.dropout = dropout
        self.precision = precision

    def __call__(self, maps: Sequence[jax.Array], *, key: jax.Array | None = None) -> jax.Array:
        """Maps [B,H_i,W_i,inputs[i]] -> float32 [B,H_0,W_0,num_classes]; a key means training."""
        training = key is not None
        *before, last = (x.astype(self.precision.compute) for x in maps)
        levels = [lateral(x, training=training) for lateral, x in zip(self.lateral, before, strict=True)]
        levels.append(self.pooling(last, training=training))
        add_from_above(levels)
        smooth = [layer(x, training=training) for layer, x in zip(self.smooth, levels[:-1], strict=True)]
        size = levels[0].shape[1], levels[0].shape[2]
        merged = jnp.concatenate([resize_map(x, size) for x in (*smooth, levels[-1])], -1)
        x = self.merge(merged, training=training)
        return self.head(dropout(x.astype(jnp.float32), self.dropout, key))


class AuxiliaryPixelHead(nnx.Module):
    """Logits for each pixel of one map: a 3x3 convolution with BatchNorm and ReLU, dropout, a linear layer.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      num_classes: number of logits.
      dropout: rate of the dropout before the linear layer.
      precision: what the head computes in.

    Reference:
      Long et al., `Fully Convolutional Networks <https://arxiv.org/abs/1411.4038>`_, 2015; mmsegmentation's
      ``FCNHead``, on the last stage but one.
    """

    def __init__(
        self, init: Initializer, inputs: int, num_classes: int, *, dropout: float = 0.0, precision: Precision
    ) -> None:
        for_conv, for_head = init.spawn(2)
        self.conv = conv_norm_relu(for_conv, inputs, AUXILIARY_CHANNELS, 3, precision)
        self.head = Linear(for_head, AUXILIARY_CHANNELS, num_classes, role=Role.HEAD)
        self.dropout = dropout

    def __call__(self, x: jax.Array, *, key: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> float32 [B,H,W,num_classes], in training; the key is for its dropout."""
        x = self.conv(x, training=True).astype(jnp.float32)
        return self.head(dropout(x, self.dropout, key))
