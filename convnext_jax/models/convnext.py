"""ConvNeXt, with a choice of stem for small images.

Liu et al. 2022, "A ConvNet for the 2020s", arXiv 2201.03545.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.models.layers import (
    DepthwiseConv,
    LayerNorm,
    Linear,
    PatchConv,
    Seed,
    WindowConv,
    drop_path,
    initial_constant,
)
from convnext_jax.models.sizes import STEMS, Size, check_image_size
from convnext_jax.ops.gelu import gelu


class Stem(nnx.Module):
    """First convolution and LayerNorm."""

    def __init__(self, seed: Seed, name: str, inputs: int, outputs: int) -> None:
        stem = STEMS[name]
        if stem.kernel == stem.stride:
            self.conv: nnx.Module = PatchConv(seed, inputs, outputs, stem.kernel)
        else:
            self.conv = WindowConv(seed, inputs, outputs, size=stem.kernel, stride=stem.stride, padding=stem.padding)
        self.norm = LayerNorm(outputs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stem's stride."""
        return self.norm(self.conv(x))


class Downsample(nnx.Module):
    """LayerNorm and 2x2 convolution of stride 2."""

    def __init__(self, seed: Seed, inputs: int, outputs: int) -> None:
        self.norm = LayerNorm(inputs)
        self.conv = PatchConv(seed, inputs, outputs, 2)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H//2,W//2,outputs]."""
        return self.conv(self.norm(x))


class Block(nnx.Module):
    """Depthwise 7x7, LayerNorm, 4C channels, GELU, C channels, layer scale, stochastic depth, residual."""

    def __init__(self, seed: Seed, channels: int, *, drop_rate: float, layer_scale: float) -> None:
        depthwise, expand, project = seed.spawn(3)
        self.depthwise = DepthwiseConv(depthwise, channels, 7)
        self.norm = LayerNorm(channels)
        self.expand = Linear(expand, channels, 4 * channels)
        self.project = Linear(project, 4 * channels, channels)
        self.layer_scale = initial_constant(channels, layer_scale) if layer_scale else None
        self.drop_rate = drop_rate

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]; the key is this block's alone."""
        branch = self.norm(self.depthwise(x))
        branch = gelu(self.expand(branch))  # [B,H,W,4C]
        branch = self.project(branch)  # [B,H,W,C]
        if self.layer_scale is not None:
            branch = branch * self.layer_scale[...].astype(x.dtype)
        return x + drop_path(branch, self.drop_rate, key)


class Stage(nnx.Module):
    """Blocks of one width, behind a `Downsample` in every stage but the first."""

    def __init__(self, downsample: Downsample | None, blocks: list[Block]) -> None:
        self.downsample = downsample
        self.blocks = nnx.List(blocks)

    def __call__(self, x: jax.Array, keys: list[jax.Array | None]) -> jax.Array:
        """[B,H,W,C] -> [B,H//2,W//2,C'], H and W in the first stage; one key a block."""
        if self.downsample is not None:
            x = self.downsample(x)
        for block, key in zip(self.blocks, keys, strict=True):
            x = block(x, key=key)
        return x


class ConvNeXt(nnx.Module):
    """Stem, four stages, average pool, LayerNorm, linear head; `create_model` builds one."""

    def __init__(
        self,
        seed: Seed,
        size: Size,
        *,
        stem: str,
        num_classes: int,
        in_channels: int,
        drop_path: float,
        layer_scale: float,
        dtype: jax.typing.DTypeLike,
    ) -> None:
        self.stem_name = stem
        self.dtype = jnp.dtype(dtype)
        stem_seed, head_seed, *stage_seeds = seed.spawn(2 + len(size.depths))
        self.stem = Stem(stem_seed, stem, in_channels, size.dims[0])
        rates = iter(linear_rates(drop_path, sum(size.depths)))
        stages = []
        for index, (stage_seed, depth, dim) in enumerate(zip(stage_seeds, size.depths, size.dims, strict=True)):
            down_seed, *block_seeds = stage_seed.spawn(1 + depth)
            downsample = Downsample(down_seed, size.dims[index - 1], dim) if index else None
            blocks = [Block(s, dim, drop_rate=next(rates), layer_scale=layer_scale) for s in block_seeds]
            stages.append(Stage(downsample, blocks))
        self.stages = nnx.List(stages)
        self.norm = LayerNorm(size.dims[-1])
        self.head = Linear(head_seed, size.dims[-1], num_classes)

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Outputs of the four stages, strides 1, 2, 4, 8 times the stem's.

        Args:
          images: [B,H,W,C], normalised.
          key: turns stochastic depth on.

        Returns:
          Four maps [B,H',W',C'] in the compute dtype.

        Raises:
          UserError: the images vanish on the way to the last stage.
        """
        check_image_size(self.stem_name, images.shape[1], images.shape[2])
        x = self.stem(images.astype(self.dtype))
        first, outputs = 0, []
        for stage in self.stages:
            count = len(stage.blocks)
            x = stage(x, [block_key(key, first + index) for index in range(count)])
            first += count
            outputs.append(x)
        return tuple(outputs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Logits [B,classes], float32, of images [B,H,W,C]; a key turns stochastic depth on."""
        x = self.features(images, key=key)[-1].astype(jnp.float32)
        return self.head(self.norm(x.mean((1, 2))))


def linear_rates(last: float, count: int) -> list[float]:
    """Drop rates of `count` blocks, growing linearly from 0 to `last`."""
    return [last * index / max(count - 1, 1) for index in range(count)]


def block_key(key: jax.Array | None, index: int) -> jax.Array | None:
    """Key of a block's own drop-path mask: one key for all blocks would nest the masks."""
    return None if key is None else jax.random.fold_in(key, index)
