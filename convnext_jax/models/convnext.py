"""ConvNeXt and its variants, with a choice of stem for small images.

Liu et al. 2022, "A ConvNet for the 2020s", arXiv 2201.03545; Woo et al. 2023, "ConvNeXt V2", arXiv 2301.00808.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.models.architectures import STEMS, Architecture, Window
from convnext_jax.layers.bilstm2d import BiLSTM2D
from convnext_jax.layers.drop_path import BranchScales, draw_branch_scales, linear_rates
from convnext_jax.layers.layers import (
    DepthwiseConv,
    GlobalResponseNorm,
    Initializer,
    Linear,
    PatchConv,
    WindowConv,
    activation,
    add_branch,
    dropout,
    initial_layer_scale,
    make_norm,
)
from convnext_jax.models.multiscale import MultiscaleBlock
from convnext_jax.layers.remat import rematerialised
from convnext_jax.models.swin_mlp import SwinMLPBlock

PARTS = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


class Stem(nnx.Module):
    """First convolutions and, but for isotropic networks, LayerNorm."""

    def __init__(self, init: Initializer, inputs: int, architecture: Architecture) -> None:
        first, *more = STEMS[architecture.stem]
        outputs = architecture.dims[0]
        for_first, *for_more = init.spawn(1 + len(more)) if more else [init]
        self.conv = window_conv(for_first, inputs, outputs, first)
        self.more = nnx.List([window_conv(i, outputs, outputs, w) for i, w in zip(for_more, more, strict=True)])
        self.norm = None if architecture.isotropic else make_norm(architecture.norm, outputs)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stem's stride."""
        x = self.conv(x)
        for conv in self.more:
            x = conv(x)
        return x if self.norm is None else self.norm(x, training=training)


def window_conv(init: Initializer, inputs: int, outputs: int, window: Window) -> nnx.Module:
    """The convolution of a window, as patches where these do not overlap."""
    if window.kernel == window.stride and not window.padding:
        return PatchConv(init, inputs, outputs, window.kernel)
    return WindowConv(init, inputs, outputs, size=window.kernel, stride=window.stride, padding=window.padding)


class Downsample(nnx.Module):
    """LayerNorm and 2x2 convolution of stride 2."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, norm: str) -> None:
        self.norm = make_norm(norm, inputs)
        self.conv = PatchConv(init, inputs, outputs, 2)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H//2,W//2,outputs]."""
        return self.conv(self.norm(x, training=training))


class Block(nnx.Module):
    """Spatial convolution, LayerNorm, wide layer, activation, GRN, narrow layer, layer scale, drop path, residual."""

    residuals = 1

    def __init__(self, init: Initializer, channels: int, architecture: Architecture) -> None:
        spatial, expand, project = init.spawn(3)
        size, hidden = architecture.kernel_size, architecture.expansion * channels
        # Named for its kind, so that weights of the one are never taken for the other's.
        self.kind = architecture.convolution
        if self.kind == "depthwise":
            self.depthwise = DepthwiseConv(spatial, channels, size)
        else:
            self.dense = window_conv(spatial, channels, channels, Window(size, 1, size // 2))
        self.norm = make_norm(architecture.norm, channels)
        self.expand = Linear(expand, channels, hidden)
        self.grn = GlobalResponseNorm(hidden) if architecture.grn else None
        self.project = Linear(project, hidden, channels)
        self.layer_scale = initial_layer_scale(channels, architecture.layer_scale)
        self.activation = architecture.activation

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; the branch's scales [B], by drop path."""
        branch = self.depthwise(x) if self.kind == "depthwise" else self.dense(x)
        branch = self.norm(branch, training=training)
        branch = activation(self.activation)(self.expand(branch))  # [B,H,W,4C]
        if self.grn is not None:
            branch = self.grn(branch)
        branch = self.project(branch)  # [B,H,W,C]
        return add_branch(x, branch, self.layer_scale, scales)


AnyBlock = Block | MultiscaleBlock | SwinMLPBlock


def make_block(init: Initializer, channels: int, architecture: Architecture, *, stage: int, index: int) -> AnyBlock:
    """The block of an architecture at a stage, counted from 1, and an index in it, counted from 0."""
    if stage in architecture.swin_mlp_stages:
        return SwinMLPBlock(init, channels, architecture, shifted=index % 2 == 1)
    if architecture.block != "convnext":
        return MultiscaleBlock(init, channels, architecture)
    return Block(init, channels, architecture)


def _call_rematerialised(block: nnx.Module, x: jax.Array, scales: BranchScales) -> jax.Array:
    definition, params = nnx.split(block)

    def call(params: nnx.State, x: jax.Array, scales: BranchScales) -> jax.Array:
        return nnx.merge(definition, params)(x, training=True, scales=scales)

    return rematerialised(call)(params, x, scales)


class Stage(nnx.Module):
    """Blocks of one width, behind a `Downsample` where the map shrinks."""

    def __init__(self, downsample: Downsample | None, blocks: list[AnyBlock], remat: bool) -> None:
        self.downsample = downsample
        self.blocks = nnx.List(blocks)
        self.remat = remat

    def __call__(self, x: jax.Array, scales: Sequence[BranchScales], *, training: bool = False) -> jax.Array:
        """[B,H,W,C] -> [B,H//2,W//2,C'], or [B,H,W,C'] without downsampling; each block's scales, by drop path."""
        if self.downsample is not None:
            x = self.downsample(x, training=training)
        for block, own in zip(self.blocks, scales, strict=True):
            if self.remat and training:
                x = _call_rematerialised(block, x, own)
            else:
                x = block(x, training=training, scales=own)
        return x


class ConvNeXt(nnx.Module):
    """Stem, four stages, average pool, LayerNorm, linear head; `create_model` builds one.

    Args:
      init: draws the initial parameters.
      architecture: what the network is made of.
      num_classes: number of logits.
      in_channels: channels of the images.
      drop_path: rate of stochastic depth in the last block.
      dropout: rate of the dropout before the head.
      remat: whether a block's insides are computed again in the backward pass instead of being kept.
      dtype: of the computation.
    """

    def __init__(
        self,
        init: Initializer,
        architecture: Architecture,
        *,
        num_classes: int,
        in_channels: int,
        drop_path: float,
        dtype: jax.typing.DTypeLike,
        dropout: float = 0.0,
        remat: bool = False,
    ) -> None:
        self.architecture = architecture
        self.drop_path = drop_path
        self.dropout = dropout
        self.dtype = jnp.dtype(dtype)
        depths, dims, shrinks = architecture.depths, architecture.dims, not architecture.isotropic
        for_stem, for_head, for_lstm, *for_stages = init.spawn(3 + len(depths))
        self.stem = Stem(for_stem, in_channels, architecture)
        stages = []
        for index, (for_stage, depth, dim) in enumerate(zip(for_stages, depths, dims, strict=True)):
            for_downsample, *for_blocks = for_stage.spawn(1 + depth)
            downsample = (
                Downsample(for_downsample, dims[index - 1], dim, architecture.norm) if index and shrinks else None
            )
            blocks = [
                make_block(init, dim, architecture, stage=index + 1, index=number)
                for number, init in enumerate(for_blocks)
            ]
            stages.append(Stage(downsample, blocks, remat))
        self.stages = nnx.List(stages)
        self.lstm = BiLSTM2D(for_lstm, dims[-1]) if architecture.bilstm2d else None
        self.norm = make_norm(architecture.norm, dims[-1])
        self.head = Linear(for_head, dims[-1], num_classes)

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Outputs of the four stages: strides 1, 2, 4, 8 times the stem's, or all the stem's if isotropic.

        Args:
          images: [B,H,W,C], normalised.
          key: means training, with stochastic depth and, of BatchNorm, the batch's statistics.

        Returns:
          Four maps [B,H',W',C'] in the compute dtype.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        self.architecture.check_image_size(images.shape[1], images.shape[2])
        parts, outputs = self.parts(key=key, batch=images.shape[0]), []
        x = parts["stem"](images)
        for name in PARTS[1:-1]:
            x = parts[name](x)
            outputs.append(x)
        return tuple(outputs)

    def parts(self, *, key: jax.Array | None = None, batch: int = 0) -> dict[str, Callable[[jax.Array], jax.Array]]:
        """The functions, by the names of `PARTS`, that make up the model one after the other.

        Args:
          key: means training.
          batch: number of images, which training alone has to know.
        """
        training = key is not None
        parts: dict[str, Callable[[jax.Array], jax.Array]] = {
            "stem": lambda images: self.stem(images.astype(self.dtype), training=training)
        }
        scales = self._branch_scales(key, batch)
        for index, stage in enumerate(self.stages):
            parts[f"stage {index + 1}"] = functools.partial(stage, scales=scales[index], training=training)
        parts["head"] = functools.partial(self._classify, key=key)
        return parts

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Logits [B,classes], float32, of images [B,H,W,C]; a key means training."""
        return self._classify(self.features(images, key=key)[-1], key=key)

    def _branch_scales(self, key: jax.Array | None, batch: int) -> list[list[BranchScales]]:
        """Each block's, by stages; None where nothing is dropped."""
        if key is None or self.drop_path == 0.0:
            return [[None] * len(stage.blocks) for stage in self.stages]
        scales = iter(draw_branch_scales(jax.random.fold_in(key, 0), self.drop_rates(), batch))
        return [[tuple(itertools.islice(scales, block.residuals)) for block in stage.blocks] for stage in self.stages]

    def drop_rates(self) -> list[float]:
        """Each residual branch's rate of stochastic depth: a block's branches share its rate."""
        blocks = [block for stage in self.stages for block in stage.blocks]
        rates = linear_rates(self.drop_path, len(blocks))
        return [rate for rate, block in zip(rates, blocks, strict=True) for _ in range(block.residuals)]

    def _classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        if self.lstm is not None:
            x = self.lstm(x)
        x = self.norm(x.astype(jnp.float32).mean((1, 2)), training=key is not None)  # [B,C]
        return self.head(dropout(x, self.dropout, None if key is None else jax.random.fold_in(key, 1)))
