"""RepLKNet: depthwise convolutions with windows of up to 31 pixels, and their re-parametrization for inference.

Ding et al., `Scaling Up Your Kernels to 31x31 <https://arxiv.org/abs/2203.06717>`_, 2022. Names of weights and answers
are those of github.com/DingXiaoH/RepLKNet-pytorch.
"""

import dataclasses
import re
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.conv_norm import ConvNorm
from convnext_jax.layers.convolution import Conv, DepthwiseConv, Linear
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

# Strides of the first and of the last convolution of the stem. "stride4" is the paper's, made for 224 px.
STEMS = {"stride4": (2, 2), "stride2": (2, 1), "stride1": (1, 1)}


@dataclasses.dataclass(frozen=True)
class RepLKNetArchitecture(Architecture):
    """What a RepLKNet is made of.

    Attributes:
      kernel_sizes: sides of the depthwise windows of each stage, in pixels, odd.
      depths: blocks of each stage, each with a depthwise convolution and a feed-forward part.
      dims: channels of each stage.
      stem: how pixels become the first feature map, one of `STEMS`.
      small_kernel: side of the window beside each large one, odd; 0 leaves it out.
      expansion: channels inside the feed-forward part over channels outside.
      merged: whether each large window, the small one beside it and their norms are one convolution with a bias, as
        `merge_small_kernels` makes them.
    """

    initialization: ClassVar[str] = "fan_in"

    kernel_sizes: tuple[int, ...] = (31, 29, 27, 13)
    depths: tuple[int, ...] = (2, 2, 18, 2)
    dims: tuple[int, ...] = (128, 256, 512, 1024)
    stem: str = "stride4"
    small_kernel: int = 5
    expansion: int = 4
    merged: bool = False

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UserError(f"stem={self.stem!r}: unknown; {nearest(self.stem, STEMS)}")
        depths = self.depths
        check("depths", depths, bool(depths) and min(depths) >= 1, "positive numbers, one for each stage")
        stages = len(depths)
        check("dims", self.dims, len(self.dims) == stages and min(self.dims) >= 1, f"{stages} positive numbers")
        sizes = self.kernel_sizes
        odd = len(sizes) == stages and all(size > 0 and size % 2 for size in sizes)
        check("kernel_sizes", sizes, odd, f"{stages} odd and positive numbers")
        small = self.small_kernel
        fits = small == 0 or (small > 0 and small % 2 == 1 and small <= min(sizes))
        check("small_kernel", small, fits, f"0 (left out), or odd and at most {min(sizes)}")
        check("expansion", self.expansion, self.expansion >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "RepLKNet":
        """See `Architecture.build`."""
        return RepLKNet(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        first, last = STEMS[self.stem]
        return first * last * 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'stride1'"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("DingXiaoH",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        place = re.sub(r"^stages/(\d+)/blocks/(\d+)/(\w+)", _torch_block, place)
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"


_TORCH_PARTS = {
    "spatial_norm": "prelkb_bn",
    "reduce": "pw1",
    "spatial": "large_kernel",
    "restore": "pw2",
    "norm": "preffn_bn",
    "expand": "pw1",
    "project": "pw2",
}
_TORCH_PLACES = {
    r"^stem/(conv|norm)$": r"stem/0/\1",
    r"^stem/more/(\d+)": lambda found: f"stem/{int(found[1]) + 1}",
    r"^stages/(\d+)/downsample/(\w+)": lambda found: (
        f"transitions/{int(found[1]) - 1}/{('widen', 'shrink').index(found[2])}"
    ),
    r"/large/": "/lkb_origin/",
    r"/small/": "/small_conv/",
    r"/merged$": "/lkb_reparam",
    r"/norm$": "/bn",
}


def _torch_block(found: re.Match[str]) -> str:
    """The place of a part of a block, which is two of theirs."""
    stage, number, part = int(found[1]), int(found[2]), found[3]
    index = 2 * number + (part in ("norm", "expand", "project"))
    return f"stages/{stage}/blocks/{index}/{_TORCH_PARTS[part]}"


class Stem(nnx.Module):
    """3x3 convolution, depthwise 3x3, 1x1, depthwise 3x3, each with norm and ReLU."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, strides: tuple[int, int]) -> None:
        for_first, *others = init.spawn(4)
        first, last = strides
        self.conv = Conv(for_first, inputs, outputs, 3, stride=first, padding=1, bias=False, role=Role.STEM)
        self.norm = BatchNorm(outputs)
        self.more = nnx.List(
            [
                ConvNorm(others[0], outputs, outputs, 3, depthwise=True),
                ConvNorm(others[1], outputs, outputs, 1, role=Role.STEM),
                ConvNorm(others[2], outputs, outputs, 3, stride=last, depthwise=True),
            ]
        )

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stem's strides."""
        x = jax.nn.relu(self.norm(self.conv(x), training=training))
        for layer in self.more:
            x = jax.nn.relu(layer(x, training=training))
        return x


class Transition(nnx.Module):
    """1x1 convolution to more channels, depthwise 3x3 with stride 2, each with norm and ReLU."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, precision: Precision) -> None:
        for_widen, for_shrink = init.spawn(2)
        self.widen = ConvNorm(for_widen, inputs, outputs, 1)
        self.shrink = ConvNorm(for_shrink, outputs, outputs, 3, stride=2, depthwise=True)
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / 2),ceil(W / 2),outputs]."""
        x = jax.nn.relu(self.widen(x.astype(self.precision.compute), training=training))
        return jax.nn.relu(self.shrink(x, training=training)).astype(self.precision.residual)


class LargeKernelConv(nnx.Module):
    """A depthwise convolution with a large window plus one with a small window, each with a norm.

    Args:
      init: draws the kernels.
      channels: of the map.
      size: side of the large window, in pixels, odd.
      small: side of the small window, odd; 0 leaves it out.
      merged: whether all of it is one convolution with a bias.
    """

    def __init__(self, init: Initializer, channels: int, size: int, small: int, *, merged: bool) -> None:
        for_large, for_small = init.spawn(2)
        self.merged = DepthwiseConv(for_large, channels, size) if merged else None
        self.large = None if merged else ConvNorm(for_large, channels, channels, size, depthwise=True)
        self.small = None if merged or not small else ConvNorm(for_small, channels, channels, small, depthwise=True)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,channels] -> [B,H,W,channels]."""
        if self.large is None:
            assert self.merged is not None
            return self.merged(x)
        y = self.large(x, training=training)
        return y if self.small is None else y + self.small(x, training=training)

    def merge(self) -> "LargeKernelConv":
        """Returns the same function as one convolution with a bias, by the running statistics."""
        if self.large is None:
            return self
        kernel, bias = _fold_norm(self.large)
        if self.small is not None:
            small, small_bias = _fold_norm(self.small)
            margin = (kernel.shape[0] - small.shape[0]) // 2
            kernel += jnp.pad(small, ((margin, margin), (margin, margin), (0, 0), (0, 0)))
            bias += small_bias
        init = Initializer(np.random.SeedSequence(0))  # of what is replaced at once
        one = LargeKernelConv(init, kernel.shape[-1], kernel.shape[0], 0, merged=True)
        assert one.merged is not None and one.merged.bias is not None
        one.merged.kernel[...], one.merged.bias[...] = kernel, bias
        return one


def _fold_norm(layer: ConvNorm) -> tuple[jax.Array, jax.Array]:
    """Returns the kernel and the bias of a convolution that does what it and its norm do outside of training."""
    norm = layer.norm
    assert norm.scale is not None
    scale = norm.scale[...] * jax.lax.rsqrt(norm.variance[...] + norm.epsilon)
    return layer.conv.kernel[...] * scale, norm.bias[...] - norm.mean[...] * scale


class Block(nnx.Module):
    """Two residual branches: 1x1, large windows and 1x1, and a feed-forward part of two 1x1 convolutions.

    Args:
      init: draws the kernels.
      channels: of the map.
      size: side of the large window.
      architecture: of the network.
      precision: what the block computes in.
    """

    branches = 2

    def __init__(
        self, init: Initializer, channels: int, size: int, architecture: RepLKNetArchitecture, precision: Precision
    ) -> None:
        for_reduce, for_spatial, for_restore, for_expand, for_project = init.spawn(5)
        small, hidden = architecture.small_kernel, architecture.expansion * channels
        self.spatial_norm = BatchNorm(channels)
        self.reduce = ConvNorm(for_reduce, channels, channels, 1)
        self.spatial = LargeKernelConv(for_spatial, channels, size, small, merged=architecture.merged)
        self.restore = ConvNorm(for_restore, channels, channels, 1)
        self.norm = BatchNorm(channels)
        self.expand = ConvNorm(for_expand, channels, hidden, 1)
        self.project = ConvNorm(for_project, hidden, channels, 1)
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; ``scales`` has those of the two branches, [B] each."""
        first, second = scales or (None, None)
        branch = self.spatial_norm(x.astype(self.dtype), training=training)
        branch = jax.nn.relu(self.reduce(branch, training=training))
        branch = jax.nn.relu(self.spatial(branch, training=training))
        x = add_branch(x, self.restore(branch, training=training), first)
        branch = self.norm(x.astype(self.dtype), training=training)
        branch = ACTIVATIONS["gelu"](self.expand(branch, training=training))  # [B,H,W,hidden]
        return add_branch(x, self.project(branch, training=training), second)


class RepLKNet(Model):
    """Stem, stages, norm, average pool, linear head."""

    architecture: RepLKNetArchitecture

    def __init__(self, architecture: RepLKNetArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        dims, precision = architecture.dims, options.precision
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(dims))
        self.stem = Stem(for_stem, options.in_channels, dims[0], STEMS[architecture.stem])
        stages = []
        for index, (for_stage, depth) in enumerate(zip(for_stages, architecture.depths, strict=True)):
            for_transition, *for_blocks = for_stage.spawn(1 + depth)
            transition = Transition(for_transition, dims[index - 1], dims[index], precision) if index else None
            size = architecture.kernel_sizes[index]
            blocks = [Block(init, dims[index], size, architecture, precision) for init in for_blocks]
            stages.append(Stage(blocks, downsample=transition, remat=options.remat))
        self.stages = nnx.List(stages)
        self.norm = BatchNorm(dims[-1])
        self.head = Linear(for_head, dims[-1], options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = self.norm(x, training=key is not None)
        return self.head(dropout(global_average_pool(x), self.dropout, dropout_key(key)))


def merge_small_kernels(model: RepLKNet) -> RepLKNet:
    """Returns a network for inference with one convolution where there were a large and a small window and two norms.

    Outside of training its answers are the same.

    Args:
      model: a trained network; it is left as it is.
    """
    merged = nnx.clone(model)
    for stage in merged.stages:
        for block in stage.blocks:
            block.spatial = block.spatial.merge()
    merged.architecture = dataclasses.replace(model.architecture, merged=True)
    return merged
