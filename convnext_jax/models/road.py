"""The road from ResNet to ConvNeXt, step by step.

Liu et al., `A ConvNet for the 2020s <https://arxiv.org/abs/2201.03545>`_, 2022, section 2 and figure 2. One family has
the switches of all steps. Its first step is ResNet-50 (or ResNet-200) and its last ConvNeXt-T (or ConvNeXt-B), in
parameters and answers.

The paper tells the steps in words. The multiply-adds that it gives for them settle most of what the words leave open:
until the last step the first block of a stage shrinks the map in its spatial convolution, behind a first 1x1
convolution at full size in the inverted bottleneck, and a 1x1 convolution of stride 2 shrinks its shortcut. What they
cannot settle is this project's reading: the norm of the shortcut stays until there are separate downsampling layers;
the stem loses its activation when it becomes patches, and keeps its norm; convolutions that no BatchNorm follows have a
bias; layer scale comes with the last step.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.convolution import Conv, DepthwiseConv, Linear
from convnext_jax.layers.downsampling import Downsample
from convnext_jax.layers.normalization import NORMS, make_norm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool, max_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout, layer_scale
from convnext_jax.models.interface import Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

# (side of the window, stride, zeros around the map, whether a 3x3 max pool with stride 2 follows). Convolutions that
# overlap have an activation, patches have none. Those of stride 1 and 2 are for small images.
STEMS = {
    "conv7x7_s2_pool": (7, 2, 3, True),
    "conv3x3_s1": (3, 1, 1, False),
    "conv3x3_s2": (3, 2, 1, False),
    "patch4": (4, 4, 0, False),
    "patch2": (2, 2, 0, False),
}
DESIGNS = ("bottleneck", "inverted", "spatial_first")
CONVOLUTIONS = ("dense", "depthwise")


@dataclasses.dataclass(frozen=True)
class RoadArchitecture(Architecture):
    """What a network on the road is made of.

    Attributes:
      depths: blocks of each stage.
      width: channels of the first stage's spatial convolution before the bottleneck is inverted, and of its map
        afterwards. They double from stage to stage.
      stem: how pixels become the first feature map, one of `STEMS`.
      convolution: the spatial convolution of a block, one of `CONVOLUTIONS`.
      design: of a block, one of `DESIGNS`. "bottleneck" narrows, convolves and widens, "inverted" widens, convolves and
        narrows, "spatial_first" convolves, widens and narrows.
      kernel_size: side of the blocks' spatial convolution, odd.
      activation: one of `ACTIVATIONS`.
      one_activation: whether a block has one activation, before its last layer, instead of three.
      one_norm: whether a block has one norm, after its spatial convolution, instead of three.
      norm: "batch" or "layer", everywhere.
      separate_downsampling: whether a norm and a 2x2 convolution with stride 2 stand between the stages, and a norm
        before the head, instead of strides within the first block of a stage.
      layer_scale: what the layer scale of each block starts from; 0 leaves it out.
    """

    initialization: ClassVar[str] = "normal"

    depths: tuple[int, ...]
    width: int = 64
    stem: str = "conv7x7_s2_pool"
    convolution: str = "dense"
    design: str = "bottleneck"
    kernel_size: int = 3
    activation: str = "relu"
    one_activation: bool = False
    one_norm: bool = False
    norm: str = "batch"
    separate_downsampling: bool = False
    layer_scale: float = 0.0

    def __post_init__(self) -> None:
        tables: Mapping[str, Any] = {
            "stem": STEMS,
            "convolution": CONVOLUTIONS,
            "design": DESIGNS,
            "activation": ACTIVATIONS,
            "norm": NORMS,
        }
        for field, table in tables.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"{field}={value!r}: unknown; {nearest(value, table)}")
        whole = bool(self.depths) and min(self.depths) >= 1
        check("depths", self.depths, whole, "positive numbers, one for each stage")
        check("width", self.width, self.width >= 1, "1 or more")
        check("kernel_size", self.kernel_size, self.kernel_size % 2 == 1 and self.kernel_size > 0, "odd and positive")
        check("layer_scale", self.layer_scale, self.layer_scale >= 0.0, "0 (left out) or a positive number")
        first = self.design == "spatial_first"
        check("one_norm", self.one_norm, first or not self.one_norm, f"False with design={self.design}")

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the map of each stage."""
        times = 4 if self.design == "bottleneck" else 1
        return tuple(times * self.width * 2**index for index in range(len(self.depths)))

    def build(self, options: BuildOptions) -> "Road":
        """See `Architecture.build`."""
        return Road(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`."""
        _, stride, _, pools = STEMS[self.stem]
        return stride * (2 if pools else 1) * 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'patch2'" if self.stem.startswith("patch") else "the stem 'conv3x3_s1'"

    def has_bias(self, normed: bool) -> bool:
        """Returns whether a convolution has a bias, given whether a norm follows it."""
        return not (normed and self.norm == "batch")


class Stem(nnx.Module):
    """Convolution and norm; of convolutions that overlap an activation too, and a max pool in ResNet's own."""

    def __init__(self, init: Initializer, inputs: int, architecture: RoadArchitecture, outputs: int) -> None:
        size, stride, padding, self.pools = STEMS[architecture.stem]
        bias = architecture.has_bias(normed=True)
        self.conv = Conv(init, inputs, outputs, size, stride=stride, padding=padding, bias=bias, role=Role.STEM)
        self.norm = make_norm(architecture.norm, outputs)
        self.activation = None if architecture.stem.startswith("patch") else architecture.activation

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stem's stride."""
        x = self.norm(self.conv(x), training=training)
        if self.activation is not None:
            x = ACTIVATIONS[self.activation](x)
        return max_pool(x, 3, stride=2, padding=1) if self.pools else x


class Shortcut(nnx.Module):
    """1x1 convolution and norm, where the block changes the shape of the map."""

    def __init__(
        self, init: Initializer, inputs: int, outputs: int, stride: int, architecture: RoadArchitecture
    ) -> None:
        self.conv = Conv(init, inputs, outputs, 1, stride=stride, bias=architecture.has_bias(normed=True))
        self.norm = make_norm(architecture.norm, outputs)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),outputs]."""
        return self.norm(self.conv(x), training=training)


class Block(nnx.Module):
    """Three convolutions, one of them spatial, with norms and activations between them; residual.

    Args:
      init: draws the kernels.
      inputs: channels of the map.
      outputs: channels that they become.
      stride: of the spatial convolution.
      architecture: the rest.
      precision: what the block computes in.
    """

    branches = 1

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        architecture: RoadArchitecture,
        precision: Precision,
    ) -> None:
        *for_convs, for_shortcut = init.spawn(4)
        inside = outputs // 4 if architecture.design == "bottleneck" else 4 * outputs
        spatial = 0 if architecture.design == "spatial_first" else 1
        widths = (inputs, inputs if spatial == 0 else inside, inside, outputs)
        normed = [not architecture.one_norm or place == spatial for place in range(3)]
        # The three in the order in which they are applied, named as in ResNet.
        convs = [
            _convolution(
                for_convs[place],
                widths[place : place + 2],
                architecture,
                stride=stride if place == spatial else 1,
                spatial=place == spatial,
                bias=architecture.has_bias(normed[place]),
            )
            for place in range(3)
        ]
        self.conv1, self.conv2, self.conv3 = convs
        norms = [make_norm(architecture.norm, widths[place + 1]) if normed[place] else None for place in range(3)]
        self.norm1, self.norm2, self.norm3 = norms
        self.shortcut = (
            Shortcut(for_shortcut, inputs, outputs, stride, architecture) if stride > 1 or inputs != outputs else None
        )
        self.layer_scale = layer_scale(outputs, architecture.layer_scale)
        self.activation, self.one_activation = architecture.activation, architecture.one_activation
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / stride),ceil(W / stride),outputs]; ``scales`` has the branch's, [B]."""
        activate = ACTIVATIONS[self.activation]
        inputs = branch = x.astype(self.precision.compute)
        layers = ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3))
        for place, (conv, norm) in enumerate(layers):
            branch = conv(branch)
            branch = branch if norm is None else norm(branch, training=training)
            if place == 1 or (place == 0 and not self.one_activation):
                branch = activate(branch)
        if self.shortcut is not None:
            x = self.shortcut(inputs, training=training).astype(self.precision.residual)
        x = add_branch(x, branch, None if scales is None else scales[0], self.layer_scale)
        return x if self.one_activation else activate(x)


def _convolution(
    init: Initializer,
    channels: tuple[int, ...],
    architecture: RoadArchitecture,
    *,
    stride: int,
    spatial: bool,
    bias: bool,
) -> Conv | DepthwiseConv:
    inputs, outputs = channels
    size = architecture.kernel_size if spatial else 1
    if spatial and architecture.convolution == "depthwise":
        return DepthwiseConv(init, outputs, size, stride=stride, bias=bias)
    return Conv(init, inputs, outputs, size, stride=stride, padding=size // 2, bias=bias)


class Road(Model):
    """Stem, stages of residual blocks, average pool, a norm after the last step, linear head."""

    def __init__(self, architecture: RoadArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(architecture.depths))
        separate, precision = architecture.separate_downsampling, options.precision
        channels = architecture.width
        self.stem = Stem(for_stem, options.in_channels, architecture, channels)
        stages = []
        for index, (for_stage, dim) in enumerate(zip(for_stages, architecture.dims, strict=True)):
            for_downsample, *for_blocks = for_stage.spawn(1 + architecture.depths[index])
            downsample = None
            if index and separate:
                downsample, channels = Downsample(for_downsample, channels, dim, architecture.norm, precision), dim
            blocks = []
            for number, init in enumerate(for_blocks):
                stride = 2 if index and not number and not separate else 1
                block = Block(init, channels, dim, stride=stride, architecture=architecture, precision=precision)
                blocks.append(block)
                channels = dim
            stages.append(Stage(blocks, downsample=downsample, remat=options.remat))
        self.stages = nnx.List(stages)
        self.norm = make_norm(architecture.norm, channels) if separate else None
        self.head = Linear(for_head, channels, options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = global_average_pool(x)  # [B,C]
        x = x if self.norm is None else self.norm(x, training=key is not None)
        return self.head(dropout(x, self.dropout, dropout_key(key)))
