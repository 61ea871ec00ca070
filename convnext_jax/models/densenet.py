"""DenseNet-BC: every layer of a stage takes the maps of all layers before it.

Huang et al., `Densely Connected Convolutional Networks <https://arxiv.org/abs/1608.06993>`_, 2017, with bottlenecks and
with half of the channels after each stage. Parameters and answers are those of torchvision, and for small images those
of pytorchcv.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import average_pool, global_average_pool, max_pool
from convnext_jax.layers.stochastic import BranchScales, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

# (side of the window, stride, whether a norm, a ReLU and a 3x3 max pool with stride 2 follow). "conv7x7_s2_pool" is the
# paper's for 224 px, "conv3x3_s1" its stem for 32 px.
STEMS = {"conv7x7_s2_pool": (7, 2, True), "conv3x3_s1": (3, 1, False), "conv3x3_s2": (3, 2, False)}
BOTTLENECK = 4  # channels inside a layer over the growth rate


@dataclasses.dataclass(frozen=True)
class DenseNetArchitecture(Architecture):
    """What a DenseNet is made of.

    Attributes:
      depths: layers of each stage; each has a 1x1 and a 3x3 convolution.
      growth_rate: channels that each layer adds.
      stem_dim: channels of the stem.
      stem: how pixels become the first feature map, one of `STEMS`.
    """

    initialization: ClassVar[str] = "fan_out"

    depths: tuple[int, ...]
    growth_rate: int
    stem_dim: int
    stem: str = "conv7x7_s2_pool"

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UserError(f"stem={self.stem!r}: unknown; {nearest(self.stem, STEMS)}")
        right = bool(self.depths) and min(self.depths) >= 1
        check("depths", self.depths, right, "positive numbers, one for each stage")
        check("growth_rate", self.growth_rate, self.growth_rate >= 1, "1 or more")
        check("stem_dim", self.stem_dim, self.stem_dim >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "DenseNet":
        """See `Architecture.build`."""
        return DenseNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: the stem rounds a half pixel up, and the averages between stages down."""
        _, stride, pools = STEMS[self.stem]
        pixels = 2 ** (len(self.depths) - 1)
        pixels = 2 * pixels - 1 if pools else pixels
        return stride * (pixels - 1) + 1

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'conv3x3_s1'"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`; the files that torchvision publishes have the names of an old version."""
        return ("torchvision", "torchvision 0.2") if STEMS[self.stem][2] else ("pytorchcv",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        names = _PYTORCHCV if layout == "pytorchcv" else _TORCHVISION
        if found := re.match(r"stages/(\d+)/(?:blocks/(\d+)|downsample)/(\w+)$", place):
            stage, block, layer = int(found[1]), found[2], found[3]
            kind = "transition" if block is None else layer
            place = names[kind].format(stage=stage + 1, before=stage, layer=int(block or 0) + 1, part=layer)
        else:
            place = names[place]
        if layout == "pytorchcv":
            place = re.sub(r"/norm$", "/bn", place)
        if layout == "torchvision 0.2":
            place = re.sub(r"(/denselayer\d+/(?:norm|conv))(\d)$", r"\1/\2", place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"


_TORCHVISION = {
    "stem/conv": "features/conv0",
    "stem/norm": "features/norm0",
    "norm1": "features/denseblock{stage}/denselayer{layer}/norm1",
    "conv1": "features/denseblock{stage}/denselayer{layer}/conv1",
    "norm2": "features/denseblock{stage}/denselayer{layer}/norm2",
    "conv2": "features/denseblock{stage}/denselayer{layer}/conv2",
    "transition": "features/transition{before}/{part}",
    "norm": "features/norm5",
    "head": "classifier",
}
_PYTORCHCV = {
    "stem/conv": "features/init_block",
    "norm1": "features/stage{stage}/unit{layer}/conv1/bn",
    "conv1": "features/stage{stage}/unit{layer}/conv1/conv",
    "norm2": "features/stage{stage}/unit{layer}/conv2/bn",
    "conv2": "features/stage{stage}/unit{layer}/conv2/conv",
    "transition": "features/stage{stage}/trans{stage}/conv/{part}",
    "norm": "features/post_activ/bn",
    "head": "output",
}


class Stem(nnx.Module):
    """Convolution, and a norm, a ReLU and a max pool for large images."""

    def __init__(self, init: Initializer, inputs: int, architecture: DenseNetArchitecture) -> None:
        size, stride, self.pools = STEMS[architecture.stem]
        dim = architecture.stem_dim
        self.conv = Conv(init, inputs, dim, size, stride=stride, padding=size // 2, bias=False, role=Role.STEM)
        self.norm = BatchNorm(dim) if self.pools else None

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',stem_dim], by the stem's stride."""
        x = self.conv(x)
        if self.norm is None:
            return x
        return max_pool(jax.nn.relu(self.norm(x, training=training)), 3, stride=2, padding=1)


class Transition(nnx.Module):
    """Norm, ReLU, 1x1 convolution to half of the channels, mean over 2x2 pixels."""

    def __init__(self, init: Initializer, channels: int, precision: Precision) -> None:
        self.norm = BatchNorm(channels)
        self.conv = Conv(init, channels, channels // 2, 1, bias=False)
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,channels] -> [B,H//2,W//2,channels//2]."""
        x = self.conv(jax.nn.relu(self.norm(x, training=training)).astype(self.precision.compute))
        return average_pool(x, 2, stride=2).astype(self.precision.residual)


class DenseLayer(nnx.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution: the channels that a layer adds."""

    branches = 0  # nothing is added, and hence nothing dropped

    def __init__(self, init: Initializer, inputs: int, growth_rate: int, precision: Precision) -> None:
        first, second = init.spawn(2)
        self.norm1 = BatchNorm(inputs)
        self.conv1 = Conv(first, inputs, BOTTLENECK * growth_rate, 1, bias=False)
        self.norm2 = BatchNorm(BOTTLENECK * growth_rate)
        self.conv2 = Conv(second, BOTTLENECK * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.precision = precision

    def __call__(self, maps: Sequence[jax.Array], *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] of all maps before it -> [B,H,W,growth_rate]; ``scales`` are none."""
        del scales
        x = self.norm1(jnp.concatenate(maps, -1), training=training)
        x = self.conv1(jax.nn.relu(x).astype(self.precision.compute))
        x = self.conv2(jax.nn.relu(self.norm2(x, training=training)))
        return x.astype(self.precision.residual)


class DenseStage(Stage):
    """Layers that each take the maps of all before.

    With rematerialization the backward pass keeps each layer's own map alone, and joins them again: memory grows with
    the number of layers and not with its square (Pleiss et al., `Memory-Efficient Implementation of DenseNets
    <https://arxiv.org/abs/1707.06990>`_, 2017).
    """

    def __call__(self, x: jax.Array, scales: Sequence[BranchScales], *, training: bool = False) -> jax.Array:
        """Returns the maps of the stage joined, [B,H,W,C + layers growth_rate]."""
        maps = (self.downsampled(x, training=training),)
        for block in self.blocks:
            maps = (*maps, self.call_block(block, maps, None, training=training))
        return jnp.concatenate(maps, -1)


class DenseNet(Model):
    """Stem, stages with transitions between them, norm, ReLU, average pool, linear head."""

    def __init__(self, architecture: DenseNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_stages, for_head = options.init.spawn(3)
        self.stem = Stem(for_stem, options.in_channels, architecture)
        precision, channels, stages = options.precision, architecture.stem_dim, []
        for index, (depth, init) in enumerate(
            zip(architecture.depths, for_stages.spawn(len(architecture.depths)), strict=True)
        ):
            for_transition, *for_layers = init.spawn(1 + depth)
            transition = Transition(for_transition, channels, precision) if index else None
            channels, blocks = channels // 2 if index else channels, []
            for for_layer in for_layers:
                blocks.append(DenseLayer(for_layer, channels, architecture.growth_rate, precision))
                channels += architecture.growth_rate
            stages.append(DenseStage(blocks, downsample=transition, remat=options.remat))
        self.stages = nnx.List(stages)
        self.norm = BatchNorm(channels)
        self.head = Linear(for_head.of_head(), channels, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = jax.nn.relu(self.norm(x, training=key is not None))
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
