"""ConvNeXt and its variants, with a choice of stem for small images.

Liu et al., `A ConvNet for the 2020s <https://arxiv.org/abs/2201.03545>`_, 2022; Woo et al., `ConvNeXt V2
<https://arxiv.org/abs/2301.00808>`_, 2023.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.bilstm2d import BiLSTM2D
from convnext_jax.layers.convolution import Conv, DepthwiseConv, Linear
from convnext_jax.layers.downsampling import Downsample
from convnext_jax.layers.normalization import NORMS, GlobalResponseNorm, make_norm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout, layer_scale
from convnext_jax.models.convnext_torch_names import LAYOUTS, torch_name
from convnext_jax.models.interface import Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.models.multiscale import DESIGNS, MultiscaleBlock
from convnext_jax.models.swin_mlp import SwinMLPBlock
from convnext_jax.precision import Precision


@dataclasses.dataclass(frozen=True)
class Window:
    """The window of a convolution, its stride and the zeros around the map, in pixels."""

    kernel: int
    stride: int
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Returns the side of the map that a side of ``size`` pixels becomes."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


# The convolutions before the first stage. "patch4" is the paper's, made for 224 px, "patch16" that of its isotropic
# networks, and "conv7x7_patch2" that of the multi-scale network. The others keep more of a small image.
STEMS: dict[str, tuple[Window, ...]] = {
    "patch4": (Window(4, 4),),
    "patch2": (Window(2, 2),),
    "patch1": (Window(1, 1),),
    "patch16": (Window(16, 16),),
    "conv3x3_s1": (Window(3, 1, 1),),
    "conv3x3_s2": (Window(3, 2, 1),),
    "conv7x7_patch2": (Window(7, 2, 3), Window(2, 2)),
}
BLOCKS = ("convnext", *DESIGNS)
CONVOLUTIONS = ("depthwise", "dense")


def stem_output_size(stem: str, size: int) -> int:
    """Returns the side of the first feature map for an image with a side of ``size`` pixels."""
    for window in STEMS[stem]:
        size = window.output_size(size)
    return size


@dataclasses.dataclass(frozen=True)
class ConvNeXtArchitecture(Architecture):
    """What a ConvNeXt is made of.

    Attributes:
      depths: blocks of each of the four stages.
      dims: channels of each stage.
      stem: how pixels become the first feature map, one of `STEMS`. The small images of CIFAR need ``conv3x3_s1`` or
        ``patch2``.
      block: "convnext", or one of the multi-scale blocks (`convnext_jax.models.multiscale`).
      swin_mlp_stages: stages, counted from 1, that have Swin-MLP's blocks instead (`convnext_jax.models.swin_mlp`).
      bilstm2d: whether a two-dimensional LSTM follows the last stage (`convnext_jax.layers.bilstm2d`).
      isotropic: one width and one resolution throughout, no LayerNorm after the stem.
      grn: Global Response Normalization after the activation, as in ConvNeXt V2.
      layer_scale: what the layer scale of each block starts from; 0 leaves it out.
      kernel_size: side of the blocks' spatial convolution, odd.
      expansion: channels inside a block over channels outside.
      activation: of a block, one of `ACTIVATIONS`.
      convolution: the blocks' spatial convolution, "depthwise" or "dense".
      norm: "layer" or "batch", everywhere.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    stem: str = "patch4"
    block: str = "convnext"
    swin_mlp_stages: tuple[int, ...] = ()
    bilstm2d: bool = False
    isotropic: bool = False
    grn: bool = False
    layer_scale: float = 1e-6
    kernel_size: int = 7
    expansion: int = 4
    activation: str = "gelu"
    convolution: str = "depthwise"
    norm: str = "layer"

    def __post_init__(self) -> None:
        tables = {"stem": STEMS, "block": BLOCKS, "activation": ACTIVATIONS, "convolution": CONVOLUTIONS, "norm": NORMS}
        for field, table in tables.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"{field}={value!r}: unknown; {nearest(value, table)}")
        for field in ("depths", "dims"):
            sizes = getattr(self, field)
            check(field, sizes, len(sizes) == 4 and min(sizes) >= 1, "four positive numbers, one for each stage")
        one_width = len(set(self.dims)) == 1
        check("dims", self.dims, one_width or not self.isotropic, "the same in every stage of an isotropic network")
        check("layer_scale", self.layer_scale, 0.0 <= self.layer_scale < math.inf, "0 (left out) or a positive number")
        check("kernel_size", self.kernel_size, self.kernel_size % 2 == 1 and self.kernel_size > 0, "odd and positive")
        stages = self.swin_mlp_stages
        check("swin_mlp_stages", stages, set(stages) <= {1, 2, 3, 4}, "some of 1, 2, 3, 4")
        check("expansion", self.expansion, self.expansion >= 1, "1 or more")
        if self.block != "convnext":
            self._check_multiscale()

    def _check_multiscale(self) -> None:
        for field, value in (("grn", False), ("expansion", 4), ("convolution", "depthwise")):
            check(field, getattr(self, field), getattr(self, field) == value, f"{value} with block={self.block}")
        quarters = all(dim % 4 == 0 for dim in self.dims)
        check("dims", self.dims, quarters, f"multiples of 4 with block={self.block}")

    def build(self, options: BuildOptions) -> "ConvNeXt":
        """See `Architecture.build`."""
        return ConvNeXt(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`."""
        # Three 2x2 convolutions with stride 2 stand between the stages.
        needed = 1 if self.isotropic else 8
        return next(size for size in range(1, 1000) if stem_output_size(self.stem, size) >= needed)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return f"a stem of less stride than {self.stem!r}"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`; the reference alone has isotropic networks, nobody has the variants."""
        if self.block != "convnext" or self.swin_mlp_stages or self.bilstm2d:
            return ()
        if self.isotropic:
            return ("facebookresearch",)
        return tuple(layout for layout in LAYOUTS if not (self.grn and layout == "torchvision"))

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        return torch_name(path, layout, self.depths, isotropic=self.isotropic)

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the others have vectors with axes of size one in places."""
        if layout != "timm" and "/grn/" in path:
            return array.reshape(1, 1, 1, -1)
        if layout == "torchvision" and path.endswith("/layer_scale"):
            return array.reshape(-1, 1, 1)
        return super().to_torch(path, array, layout)


class Stem(nnx.Module):
    """The first convolutions and, except in isotropic networks, a norm."""

    def __init__(self, init: Initializer, inputs: int, architecture: ConvNeXtArchitecture) -> None:
        first, *more = STEMS[architecture.stem]
        outputs = architecture.dims[0]
        for_first, *for_more = init.spawn(1 + len(more)) if more else [init]
        self.conv = _window_conv(for_first, inputs, outputs, first, role=Role.STEM)
        self.more = nnx.List(
            [_window_conv(i, outputs, outputs, w, role=Role.STEM) for i, w in zip(for_more, more, strict=True)]
        )
        self.norm = None if architecture.isotropic else make_norm(architecture.norm, outputs)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stem's stride."""
        x = self.conv(x)
        for conv in self.more:
            x = conv(x)
        return x if self.norm is None else self.norm(x, training=training)


def _window_conv(init: Initializer, inputs: int, outputs: int, window: Window, *, role: Role) -> Conv:
    return Conv(init, inputs, outputs, window.kernel, stride=window.stride, padding=window.padding, role=role)


class Block(nnx.Module):
    """Spatial convolution, norm, wide layer, activation, GRN, narrow layer, layer scale, drop path, residual."""

    branches = 1

    def __init__(
        self, init: Initializer, channels: int, architecture: ConvNeXtArchitecture, precision: Precision
    ) -> None:
        spatial, expand, project = init.spawn(3)
        size, hidden = architecture.kernel_size, architecture.expansion * channels
        # Named for its kind, so that weights of one kind are never taken for the other.
        self.kind = architecture.convolution
        if self.kind == "depthwise":
            self.depthwise = DepthwiseConv(spatial, channels, size)
        else:
            self.dense = Conv(spatial, channels, channels, size, padding=size // 2)
        self.norm = make_norm(architecture.norm, channels)
        self.expand = Linear(expand, channels, hidden)
        self.grn = GlobalResponseNorm(hidden) if architecture.grn else None
        self.project = Linear(project, hidden, channels)
        self.layer_scale = layer_scale(channels, architecture.layer_scale)
        self.activation = architecture.activation
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; ``scales`` has the branch's, [B]."""
        branch = x.astype(self.dtype)
        branch = self.depthwise(branch) if self.kind == "depthwise" else self.dense(branch)
        branch = self.norm(branch, training=training)
        branch = ACTIVATIONS[self.activation](self.expand(branch))  # [B,H,W,4C]
        if self.grn is not None:
            branch = self.grn(branch)
        branch = self.project(branch, scale=self.layer_scale)  # [B,H,W,C]
        return add_branch(x, branch, None if scales is None else scales[0])


class ConvNeXt(Model):
    """Stem, four stages, average pool, norm, linear head."""

    def __init__(self, architecture: ConvNeXtArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        depths, dims, shrinks = architecture.depths, architecture.dims, not architecture.isotropic
        for_stem, for_head, for_lstm, *for_stages = options.init.spawn(3 + len(depths))
        self.stem = Stem(for_stem, options.in_channels, architecture)
        stages = []
        for index, (for_stage, depth, dim) in enumerate(zip(for_stages, depths, dims, strict=True)):
            for_downsample, *for_blocks = for_stage.spawn(1 + depth)
            downsample = (
                Downsample(for_downsample, dims[index - 1], dim, architecture.norm, options.precision)
                if index and shrinks
                else None
            )
            blocks = [
                _make_block(init, dim, architecture, options.precision, stage=index + 1, index=number)
                for number, init in enumerate(for_blocks)
            ]
            stages.append(Stage(blocks, downsample=downsample, remat=options.remat))
        self.stages = nnx.List(stages)
        self.lstm = BiLSTM2D(for_lstm, dims[-1]) if architecture.bilstm2d else None
        self.norm = make_norm(architecture.norm, dims[-1])
        self.head = Linear(for_head, dims[-1], options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        if self.lstm is not None:
            x = self.lstm(x.astype(self.precision.compute))
        x = self.norm(global_average_pool(x), training=key is not None)  # [B,C]
        return self.head(dropout(x, self.dropout, dropout_key(key)))

    def depth_levels(self) -> Mapping[str, tuple[tuple[str, ...], ...]]:
        """See `Model.depth_levels`; both are the references'.

        "single" is that of facebookresearch/ConvNeXt-V2: a level for each block, with the stem in the first. "grouped"
        is that of facebookresearch/ConvNeXt: twelve levels after the stem's, one each for the first and the second
        stage, one for three blocks of the third, the last one for the fourth, whatever the depth of the third stage.
        The downsampling layers go with the blocks that follow them.
        """
        levels = super().depth_levels()
        stem, first, *others = levels["single"]
        single = ((*stem, *first), *others)
        depths = [len(stage.blocks) for stage in self.stages]
        if any(stage.downsample is None for stage in list(self.stages)[1:]):
            return {"single": single, "grouped": levels["grouped"]}
        blocks, stages = iter((first, *others)), []
        for depth in depths:
            stages.append([next(blocks) for _ in range(depth)])
        third = [sum(stages[2][start : start + 3], ()) for start in range(0, depths[2], 3)]
        unused: list[tuple[str, ...]] = [()] * (9 - len(third))
        grouped = (stem, sum(stages[0], ()), sum(stages[1], ()), *third, *unused, sum(stages[3], ()))
        return {"single": single, "grouped": grouped}


def _make_block(
    init: Initializer,
    channels: int,
    architecture: ConvNeXtArchitecture,
    precision: Precision,
    *,
    stage: int,
    index: int,
) -> Any:
    """Returns the block at a stage, counted from 1, and at an index in it, counted from 0."""
    parts = {"norm": architecture.norm, "activation": architecture.activation, "precision": precision}
    if stage in architecture.swin_mlp_stages:
        return SwinMLPBlock(init, channels, shifted=index % 2 == 1, expansion=architecture.expansion, **parts)
    if architecture.block != "convnext":
        design, size = DESIGNS[architecture.block], architecture.kernel_size
        return MultiscaleBlock(init, channels, design, kernel_size=size, scale=architecture.layer_scale, **parts)
    return Block(init, channels, architecture, precision)
