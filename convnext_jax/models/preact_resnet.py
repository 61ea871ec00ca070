"""Pre-activation ResNets of bottlenecks, for images of 32 pixels: 164 and 1,001 layers.

He et al., `Identity Mappings in Deep Residual Networks <https://arxiv.org/abs/1603.05027>`_, 2016. Parameters and
answers are those of pytorchcv: the stride is in the 3x3 convolution. The authors' own code
(github.com/KaimingHe/resnet-1k-layers) has it in the 1x1 before.
"""

import dataclasses
import re
from typing import ClassVar

import jax
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision


@dataclasses.dataclass(frozen=True)
class PreActResNetArchitecture(Architecture):
    """What a pre-activation ResNet is made of.

    Attributes:
      depths: blocks of each stage. The map is halved and the width doubled from stage to stage. All blocks of a stage
        but the first are compiled as one loop.
      width: channels of the stem, and inside the blocks of the first stage. Each stage ends with four times its own.
    """

    initialization: ClassVar[str] = "fan_out"

    depths: tuple[int, ...]
    width: int = 16

    def __post_init__(self) -> None:
        check(
            "depths", self.depths, bool(self.depths) and min(self.depths) >= 1, "positive numbers, one for each stage"
        )
        check("width", self.width, self.width >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "PreActResNet":
        """See `Architecture.build`."""
        return PreActResNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        return 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "fewer stages"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("pytorchcv",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        place = re.sub(r"^stages/(\d+)/blocks/(\d+)", _torch_block, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"


_TORCH_PLACES = {
    r"^stem/conv$": "features/init_block",
    r"^norm$": "features/post_activ/bn",
    r"^head$": "output",
    r"/norm(\d)$": r"/body/conv\1/bn",
    r"/conv(\d)$": r"/body/conv\1/conv",
    r"/shortcut$": "/identity_conv",
}


def _torch_block(found: re.Match[str]) -> str:
    return f"features/stage{int(found[1]) + 1}/unit{int(found[2]) + 1}"


class Stem(nnx.Module):
    """3x3 convolution."""

    def __init__(self, init: Initializer, inputs: int, outputs: int) -> None:
        self.conv = Conv(init, inputs, outputs, 3, padding=1, bias=False, role=Role.STEM)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H,W,outputs]."""
        del training
        return self.conv(x)


class Block(nnx.Module):
    """Three times norm, ReLU and convolution: 1x1, 3x3, 1x1; residual.

    Where the shape changes, a 1x1 convolution after the first norm and ReLU takes the place of the residual.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      width: channels inside, a quarter of those at the end.
      stride: of the 3x3 convolution.
      precision: what the block computes in.
    """

    branches = 1

    def __init__(self, init: Initializer, inputs: int, width: int, *, stride: int, precision: Precision) -> None:
        first, second, third, for_shortcut = init.spawn(4)
        outputs = 4 * width
        self.norm1, self.norm2, self.norm3 = BatchNorm(inputs), BatchNorm(width), BatchNorm(width)
        self.conv1 = Conv(first, inputs, width, 1, bias=False)
        self.conv2 = Conv(second, width, width, 3, stride=stride, padding=1, bias=False)
        self.conv3 = Conv(third, width, outputs, 1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = Conv(for_shortcut, inputs, outputs, 1, stride=stride, bias=False) if changes else None
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),4 width]; ``scales`` has the branch's, [B]."""
        active = jax.nn.relu(self.norm1(x, training=training)).astype(self.precision.compute)
        branch = jax.nn.relu(self.norm2(self.conv1(active), training=training))
        branch = self.conv3(jax.nn.relu(self.norm3(self.conv2(branch), training=training)))
        if self.shortcut is not None:
            x = self.shortcut(active).astype(self.precision.residual)
        return add_branch(x, branch, None if scales is None else scales[0])


class PreActResNet(Model):
    """Stem, stages of residual blocks, norm, ReLU, average pool, linear head."""

    def __init__(self, architecture: PreActResNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(architecture.depths))
        self.stem = Stem(for_stem, options.in_channels, architecture.width)
        stages, channels = [], architecture.width
        for index, (for_stage, depth) in enumerate(zip(for_stages, architecture.depths, strict=True)):
            width, blocks = architecture.width * 2**index, []
            for number, init in enumerate(for_stage.spawn(depth)):
                stride = 2 if index and not number else 1
                blocks.append(Block(init, channels, width, stride=stride, precision=options.precision))
                channels = 4 * width
            stages.append(Stage(blocks, remat=options.remat, loop=True))
        self.stages = nnx.List(stages)
        self.norm = BatchNorm(channels)
        self.head = Linear(for_head.of_head(), channels, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = jax.nn.relu(self.norm(x, training=key is not None))
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))
