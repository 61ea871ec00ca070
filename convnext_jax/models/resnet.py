"""ResNet, version 1.5 (the stride of a bottleneck is in its 3x3 convolution), and ResNeXt.

He et al., `Deep Residual Learning for Image Recognition <https://arxiv.org/abs/1512.03385>`_, 2016; Xie et al.,
`Aggregated Residual Transformations <https://arxiv.org/abs/1611.05431>`_, 2017. Parameters and answers are those of
torchvision and timm, and those of github.com/akamaster/pytorch_resnet_cifar10 with padded shortcuts.
"""

import dataclasses
import math
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.conv_norm import ConvNorm
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool, max_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

BLOCKS = ("basic", "bottleneck")
SHORTCUTS = ("projection", "pad")
# (side of the window, stride, whether a 3x3 max pool with stride 2 follows). "conv7x7_s2_pool" is the paper's, made for
# 224 px; the others keep more of a small image.
STEMS = {"conv7x7_s2_pool": (7, 2, True), "conv3x3_s1": (3, 1, False), "conv3x3_s2": (3, 2, False)}


@dataclasses.dataclass(frozen=True)
class ResNetArchitecture(Architecture):
    """What a ResNet is made of.

    Attributes:
      depths: blocks of each stage. The map is halved and the width doubled from stage to stage.
      block: "basic" has two 3x3 convolutions, "bottleneck" 1x1, 3x3 and 1x1 with four times the width at its end.
      width: channels of the first stage, inside a block.
      stem: how pixels become the first feature map, one of `STEMS`. The small images of CIFAR need ``conv3x3_s1``.
      shortcut: where the shape changes, "projection" is a 1x1 convolution with a norm. "pad" takes every second pixel
        and adds channels of zeros, the paper's option A.
      groups: of the 3x3 convolution of a bottleneck, ResNeXt's cardinality.
      width_per_group: channels of a group in the first stage if ``width`` is 64, and in proportion to it.
    """

    initialization: ClassVar[str] = "fan_out"

    depths: tuple[int, ...]
    block: str = "bottleneck"
    width: int = 64
    stem: str = "conv7x7_s2_pool"
    shortcut: str = "projection"
    groups: int = 1
    width_per_group: int = 64

    def __post_init__(self) -> None:
        for field, table in {"block": BLOCKS, "stem": STEMS, "shortcut": SHORTCUTS}.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"{field}={value!r}: unknown; {nearest(value, table)}")
        check(
            "depths", self.depths, bool(self.depths) and min(self.depths) >= 1, "positive numbers, one for each stage"
        )
        check("width", self.width, self.width >= 1, "1 or more")
        if self.block == "basic":
            for field, value in (("groups", 1), ("width_per_group", 64)):
                check(field, getattr(self, field), getattr(self, field) == value, f"{value} with block=basic")
        check("groups", self.groups, self.groups >= 1, "1 or more")
        least = math.ceil(64 / self.width)
        check(
            "width_per_group", self.width_per_group, self.width_per_group >= least, f"{least} or more (64 over width)"
        )

    def build(self, options: BuildOptions) -> "ResNet":
        """See `Architecture.build`."""
        return ResNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        _, stride, pools = STEMS[self.stem]
        return stride * (2 if pools else 1) * 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'conv3x3_s1'"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`; timm has torchvision's names."""
        return ("torchvision",) if self.shortcut == "projection" else ("akamaster",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        place = re.sub(r"^stages/(\d+)/blocks/(\d+)", lambda found: f"layer{int(found[1]) + 1}.{found[2]}", place)
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        if layout == "akamaster" and place == "fc":
            place = "linear"
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"


_TORCH_PLACES = {
    r"^stem/conv$": "conv1",
    r"^stem/norm$": "bn1",
    r"^head$": "fc",
    r"/norm(\d)$": r"/bn\1",
    r"/shortcut/conv$": "/downsample/0",
    r"/shortcut/norm$": "/downsample/1",
}


class PaddedShortcut(nnx.Module):
    """Every pixel that a stride meets, between channels of zeros."""

    def __init__(self, outputs: int, *, stride: int) -> None:
        self.outputs = outputs
        self.stride = stride

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,C] -> [B,ceil(H / stride),ceil(W / stride),outputs]."""
        del training
        new = self.outputs - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))


class Stem(nnx.Module):
    """Convolution, norm, ReLU, and a max pool in the paper's network."""

    def __init__(self, init: Initializer, inputs: int, architecture: ResNetArchitecture) -> None:
        size, stride, self.pools = STEMS[architecture.stem]
        width = architecture.width
        self.conv = Conv(init, inputs, width, size, stride=stride, padding=size // 2, bias=False, role=Role.STEM)
        self.norm = BatchNorm(width)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',width], by the stem's stride."""
        x = jax.nn.relu(self.norm(self.conv(x), training=training))
        return max_pool(x, 3, stride=2, padding=1) if self.pools else x


def _make_shortcut(
    kind: str, init: Initializer, inputs: int, outputs: int, stride: int
) -> ConvNorm | PaddedShortcut | None:
    if stride == 1 and inputs == outputs:
        return None
    if kind == "pad":
        return PaddedShortcut(outputs, stride=stride)
    return ConvNorm(init, inputs, outputs, 1, stride=stride)


class Block(nnx.Module):
    """Convolutions, each with a norm and all but the last with a ReLU; residual; ReLU.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      width: channels of the stage, as in `ResNetArchitecture.width`.
      stride: of the first 3x3 convolution.
      architecture: of the network.
      precision: what the block computes in.
    """

    branches = 1

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        width: int,
        *,
        stride: int,
        architecture: ResNetArchitecture,
        precision: Precision,
    ) -> None:
        first, second, third, for_shortcut = init.spawn(4)
        self.kind, self.precision = architecture.block, precision
        outputs = _block_outputs(architecture, width)
        if self.kind == "bottleneck":
            groups = architecture.groups
            inner = width * architecture.width_per_group // 64 * groups
            self.conv1 = Conv(first, inputs, inner, 1, bias=False)
            self.conv2 = Conv(second, inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
            self.conv3 = Conv(third, inner, outputs, 1, bias=False)
            self.norm3 = BatchNorm(outputs)
        else:
            inner = width
            self.conv1 = Conv(first, inputs, inner, 3, stride=stride, padding=1, bias=False)
            self.conv2 = Conv(second, inner, outputs, 3, padding=1, bias=False)
        self.norm1, self.norm2 = BatchNorm(inner), BatchNorm(inner)
        self.shortcut = _make_shortcut(architecture.shortcut, for_shortcut, inputs, outputs, stride)

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),outputs]; ``scales`` has the branch's, [B]."""
        inputs = x.astype(self.precision.compute)
        branch = jax.nn.relu(self.norm1(self.conv1(inputs), training=training))
        branch = self.norm2(self.conv2(branch), training=training)
        if self.kind == "bottleneck":
            branch = self.norm3(self.conv3(jax.nn.relu(branch)), training=training)
        if self.shortcut is not None:
            x = self.shortcut(inputs, training=training).astype(self.precision.residual)
        return jax.nn.relu(add_branch(x, branch, None if scales is None else scales[0]))


def _block_outputs(architecture: ResNetArchitecture, width: int) -> int:
    return 4 * width if architecture.block == "bottleneck" else width


class ResNet(Model):
    """Stem, stages of residual blocks, average pool, linear head."""

    def __init__(self, architecture: ResNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(architecture.depths))
        self.stem = Stem(for_stem, options.in_channels, architecture)
        stages, channels = [], architecture.width
        for index, (for_stage, depth) in enumerate(zip(for_stages, architecture.depths, strict=True)):
            width, blocks = architecture.width * 2**index, []
            for number, init in enumerate(for_stage.spawn(depth)):
                stride = 2 if index and not number else 1
                common = {"architecture": architecture, "precision": options.precision}
                blocks.append(Block(init, channels, width, stride=stride, **common))
                channels = _block_outputs(architecture, width)
            stages.append(Stage(blocks, remat=options.remat))
        self.stages = nnx.List(stages)
        self.head = Linear(for_head.of_head(), channels, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
