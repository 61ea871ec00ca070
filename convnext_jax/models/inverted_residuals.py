"""What MobileNetV2 and EfficientNet have in common: a table of inverted residual blocks."""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.conv_norm import ConvNorm
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.inverted_residual import InvertedResidual, round_channels
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import dropout
from convnext_jax.models.interface import Architecture, BuildOptions, Model, Stage, dropout_key


@dataclasses.dataclass(frozen=True)
class Row:
    """Consecutive blocks of one width.

    Attributes:
      expansion: channels inside a block over channels of its map.
      size: side of the depthwise window, in pixels.
      channels: after each block.
      depth: number of blocks.
    """

    expansion: int
    size: int
    channels: int
    depth: int


@dataclasses.dataclass(frozen=True)
class InvertedResidualArchitecture(Architecture):
    """What a network of inverted residual blocks is made of.

    Attributes:
      width_multiplier: channels over those of the family's table, rounded to multiples of 8.
      depth_multiplier: blocks over those of the family's table, rounded up in each of its rows.
      strides: 1 or 2, of the stem and of each stage after the first. There are as many stages as strides, at most those
        of the family's table. The small images of CIFAR need less than 2 in the first of them.
    """

    initialization: ClassVar[str] = "fan_out"
    table: ClassVar[tuple[tuple[Row, ...], ...]]

    width_multiplier: float = 1.0
    depth_multiplier: float = 1.0
    strides: tuple[int, ...] = (2, 2, 2, 2, 2)

    def __post_init__(self) -> None:
        for field in ("width_multiplier", "depth_multiplier"):
            check(field, getattr(self, field), 0.0 < getattr(self, field) < math.inf, "a positive number")
        right = 1 <= len(self.strides) <= len(self.table) and set(self.strides) <= {1, 2}
        allowed = f"up to {len(self.table)} times 1 or 2: of the stem and of the stages after the first"
        check("strides", self.strides, right, allowed)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        return math.prod(self.strides)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "strides with fewer 2s"

    def width(self, channels: int) -> int:
        """Returns the channels of this network in place of those of the family's table."""
        return round_channels(channels * self.width_multiplier)

    def stages(self) -> list[list[Row]]:
        """Returns the rows of each stage, with the channels and depths of this network."""

        def scale(row: Row) -> Row:
            depth = math.ceil(row.depth * self.depth_multiplier)
            return dataclasses.replace(row, channels=self.width(row.channels), depth=depth)

        return [[scale(row) for row in rows] for rows in self.table[: len(self.strides)]]


class Stem(nnx.Module):
    """3x3 convolution, norm, activation."""

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        activation: Callable[[jax.Array], jax.Array],
        momentum: float,
        epsilon: float,
    ) -> None:
        self.conv = Conv(init, inputs, outputs, 3, stride=stride, padding=1, bias=False, role=Role.STEM)
        self.norm = BatchNorm(outputs, momentum=momentum, epsilon=epsilon)
        self.activation = activation

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),outputs]."""
        return self.activation(self.norm(self.conv(x), training=training))


class InvertedResidualNet(Model):
    """Stem, stages of inverted residual blocks, 1x1 convolution, norm, activation, average pool, linear head.

    Args:
      architecture: what the network is made of.
      options: what it is built with.
      stem: channels of the stem.
      last: channels of the convolution after the stages.
      activation: everywhere.
      squeeze: whether the blocks have squeeze-and-excitation, with a quarter of a block's inputs inside.
      momentum: of the norms.
      epsilon: of the norms.
    """

    def __init__(
        self,
        architecture: InvertedResidualArchitecture,
        options: BuildOptions,
        *,
        stem: int,
        last: int,
        activation: Callable[[jax.Array], jax.Array],
        squeeze: bool = False,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(architecture, options)
        stages = architecture.stages()
        for_stem, for_last, for_head, *for_stages = options.init.spawn(3 + len(stages))
        norm = {"momentum": momentum, "epsilon": epsilon}
        first, *strides = architecture.strides
        self.stem = Stem(for_stem, options.in_channels, stem, stride=first, activation=activation, **norm)
        built, channels = [], stem
        for for_stage, rows, stage_stride in zip(for_stages, stages, (1, *strides), strict=True):
            repeated, blocks = [row for row in rows for _ in range(row.depth)], []
            for number, (init, row) in enumerate(zip(for_stage.spawn(len(repeated)), repeated, strict=True)):
                block = InvertedResidual(
                    init,
                    channels,
                    row.channels,
                    expansion=row.expansion,
                    size=row.size,
                    stride=1 if number else stage_stride,
                    squeezed=max(1, channels // 4) if squeeze else 0,
                    activation=activation,
                    precision=options.precision,
                    **norm,
                )
                blocks.append(block)
                channels = row.channels
            built.append(Stage(blocks, remat=options.remat))
        self.stages = nnx.List(built)
        self.last = ConvNorm(for_last, channels, last, 1, momentum=momentum, epsilon=epsilon)
        self.head = Linear(for_head.of_head(), last, options.num_classes, role=Role.HEAD)
        self.activation = activation

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = self.activation(self.last(x.astype(self.precision.compute), training=key is not None))
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
