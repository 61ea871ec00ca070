"""The Swin Transformer: attention inside of windows that are shifted from block to block.

Liu et al., `Swin Transformer <https://arxiv.org/abs/2103.14030>`_, 2021. Parameters and answers are those of
torchvision, for images of any size.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.attention import WindowAttention, resize_relative_positions
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.pooling import global_average_pool
from convnext_jax.layers.stochastic import dropout
from convnext_jax.layers.transformer import TransformerBlock
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.precision import Precision

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class SwinArchitecture(Architecture):
    """What a Swin Transformer is made of.

    Attributes:
      dim: channels of the first stage. They are doubled, and the map is halved, from stage to stage.
      depths: blocks of each stage.
      heads: of the attention in each stage; they divide its channels.
      patch_size: side of the patches that become pixels of the first map, in pixels.
      window: side of the windows that attention stays inside of, in pixels of the map. A map is filled up to whole
        windows, so a window that divides it wastes nothing.
      expansion: channels inside the MLP over channels outside.
    """

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    patch_size: int = 4
    window: int = 7
    expansion: int = 4

    def __post_init__(self) -> None:
        for field in ("dim", "patch_size", "window", "expansion"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")
        check(
            "depths", self.depths, bool(self.depths) and min(self.depths) >= 1, "positive numbers, one for each stage"
        )
        fits = len(self.heads) == len(self.depths) and min(self.heads) >= 1
        fits = fits and all(dim % heads == 0 for dim, heads in zip(self.dims, self.heads, strict=True))
        dims = ", ".join(map(str, self.dims))
        check("heads", self.heads, fits, f"divisors of the channels of the {len(self.depths)} stages, {dims}")

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.dim * 2**index for index in range(len(self.depths)))

    def build(self, options: BuildOptions) -> "Swin":
        """See `Architecture.build`."""
        return Swin(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        return self.patch_size * 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return f"a patch_size below {self.patch_size}"

    def adapt_weight(self, path: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """See `Architecture.adapt_weight`; a table of relative positions is resized too."""
        if path.endswith("position/table") and weight.shape[1:] == shape[1:]:
            return np.asarray(resize_relative_positions(jnp.asarray(weight), self.window))
        return super().adapt_weight(path, weight, shape)

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`; "microsoft" is the authors' own."""
        return ("torchvision", "timm", "microsoft")

    @property
    def torch_constants(self) -> tuple[str, ...]:
        """See `Architecture.torch_constants`."""
        return ("relative_position_index", "attn_mask")

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        place = place.removesuffix("/position")
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        for ours, theirs in _torchvision_stages(place) if layout == "torchvision" else _timm_stages(place, layout):
            place = re.sub(ours, theirs, place)
        if leaf == "table":
            return f"{place.replace('/', '.')}.relative_position_bias_table"
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"


_TORCH_PLACES = {
    r"/attention(/attention)?": "/attn",
    r"/attn/project$": "/attn/proj",
    r"/downsample/project$": "/downsample/reduction",
}


def _torchvision_stages(place: str) -> list[tuple[str, str]]:
    """Returns what to replace in torchvision's names: it counts the stem, the stages and the mergings in one row."""
    names = [(r"/expand$", "/mlp/0"), (r"/project$", "/mlp/3")]
    names += [(r"^stem/conv$", "features/0/0"), (r"^stem/norm$", "features/0/2")]
    if found := re.match(r"stages/(\d+)/(downsample|blocks)", place):
        number = 2 * int(found[1]) + (found[2] == "blocks")
        names.append((r"^stages/\d+/(downsample|blocks)", f"features/{number}"))
    return names


def _timm_stages(place: str, layout: str) -> list[tuple[str, str]]:
    """Returns what to replace in the names of timm, where a merging begins a stage, and of Microsoft, where it ends."""
    names = [(r"/expand$", "/mlp/fc1"), (r"/project$", "/mlp/fc2"), (r"^stem/conv$", "patch_embed/proj")]
    names += [(r"^stem/", "patch_embed/"), (r"^head$", "head/fc" if layout == "timm" else "head")]
    if layout == "microsoft" and (found := re.match(r"stages/(\d+)/downsample", place)):
        names.append((r"^stages/\d+", f"layers/{int(found[1]) - 1}"))
    return [*names, (r"^stages/", "layers/")]


class Stem(nnx.Module):
    """Patches as pixels, and LayerNorm."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, size: int) -> None:
        self.conv = Conv(init, inputs, outputs, size, stride=size, role=Role.STEM)
        self.norm = LayerNorm(outputs, epsilon=EPSILON)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,H // size,W // size,outputs]."""
        del training
        return self.norm(self.conv(x))


class PatchMerging(nnx.Module):
    """Each 2x2 pixels side by side, LayerNorm, linear layer. An odd map is filled up with zeros."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, precision: Precision) -> None:
        self.norm = LayerNorm(4 * inputs, epsilon=EPSILON)
        self.project = Linear(init, 4 * inputs, outputs, bias=False)
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,ceil(H / 2),ceil(W / 2),outputs]."""
        del training
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        # Down each column first.
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.norm(jnp.concatenate(corners, -1)).astype(self.precision.compute)  # [B,H',W',4 inputs]
        return self.project(x).astype(self.precision.residual)


def _block(
    init: Initializer, architecture: SwinArchitecture, precision: Precision, *, stage: int, shifted: bool
) -> TransformerBlock:
    dim, window = architecture.dims[stage], architecture.window

    def attention(init: Initializer) -> WindowAttention:
        return WindowAttention(init, dim, architecture.heads[stage], window=window, shifted=shifted)

    return TransformerBlock(init, attention, dim, architecture.expansion * dim, precision=precision, epsilon=EPSILON)


class Swin(Model):
    """Patches, stages of blocks with a merging of patches between them, LayerNorm, average pool, linear head."""

    def __init__(self, architecture: SwinArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        dims = architecture.dims
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(dims))
        self.stem = Stem(for_stem, options.in_channels, dims[0], architecture.patch_size)
        stages = []
        for index, (for_stage, depth, dim) in enumerate(zip(for_stages, architecture.depths, dims, strict=True)):
            for_merging, *for_blocks = for_stage.spawn(1 + depth)
            merging = PatchMerging(for_merging, dims[index - 1], dim, options.precision) if index else None
            blocks = [
                _block(init, architecture, options.precision, stage=index, shifted=number % 2 == 1)
                for number, init in enumerate(for_blocks)
            ]
            stages.append(Stage(blocks, downsample=merging, remat=options.remat))
        self.stages = nnx.List(stages)
        self.norm = LayerNorm(dims[-1], epsilon=EPSILON)
        self.head = Linear(for_head, dims[-1], options.num_classes, role=Role.HEAD)

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = global_average_pool(self.norm(x.astype(jnp.float32)))  # [B,C]
        return self.head(dropout(x, self.dropout, dropout_key(key)))
