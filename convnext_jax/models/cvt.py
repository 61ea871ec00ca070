"""CvT, the Convolutional Vision Transformer: tokens and their queries, keys and values are made by convolutions.

Wu et al., `CvT: Introducing Convolutions to Vision Transformers <https://arxiv.org/abs/2103.15808>`_, 2021. Parameters
and answers are those of Hugging Face transformers. The CVT of Hassani et al. is another network
(`convnext_jax.models.compact_transformer`).
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.conv_norm import ConvNorm
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.models.interface import TORCH_LEAVES, Architecture, BuildOptions, Model, Stage, dropout_key
from convnext_jax.ops.attention import dot_product_attention
from convnext_jax.precision import Precision

EPSILON = 1e-5
# (side of the window, stride, padding). "conv7x7_s4" is the paper's, made for 224 px; the other keeps more of a small
# image.
STEMS = {"conv7x7_s4": (7, 4, 2), "conv3x3_s2": (3, 2, 1)}

# A map [B,H,W,C]; in the last stage a class token [B,1,C] and a map.
State = Any


@dataclasses.dataclass(frozen=True)
class CvTArchitecture(Architecture):
    """What a CvT is made of.

    Attributes:
      depths: blocks of each stage, of which there are two or more. The map is halved from stage to stage.
      dims: channels of each stage.
      heads: of the attention in each stage; they divide its channels.
      stem: how pixels become the first feature map, one of `STEMS`. Small images need ``conv3x3_s2``.
      expansion: channels inside the MLP over channels outside.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...] = (64, 192, 384)
    heads: tuple[int, ...] = (1, 3, 6)
    stem: str = "conv7x7_s4"
    expansion: int = 4

    def __post_init__(self) -> None:
        if self.stem not in STEMS:
            raise UserError(f"stem={self.stem!r}: unknown; {nearest(self.stem, STEMS)}")
        several = len(self.depths) >= 2 and min(self.depths) >= 1
        check("depths", self.depths, several, "two or more positive numbers, one for each stage")
        count = len(self.depths)
        check("dims", self.dims, len(self.dims) == count and min(self.dims) >= 1, f"positive numbers of {count} stages")
        fits = len(self.heads) == count and min(self.heads) >= 1
        fits = fits and all(dim % heads == 0 for dim, heads in zip(self.dims, self.heads, strict=True))
        check("heads", self.heads, fits, f"divisors of dims={self.dims}")
        check("expansion", self.expansion, self.expansion >= 1, "1 or more")

    def build(self, options: BuildOptions) -> "CvT":
        """See `Architecture.build`."""
        return CvT(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each in the last map, so that none is padding alone."""
        return STEMS[self.stem][1] * 2 ** (len(self.depths) - 1)

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return "the stem 'conv3x3_s2'"

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("transformers",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        place, _, leaf = path.rpartition("/")
        if leaf == "class_token":
            return f"{place.removesuffix('/downsample').replace('stages/', 'cvt.encoder.stages.')}.cls_token"
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the class token has axes of a batch."""
        return array.reshape(1, 1, -1) if path.endswith("class_token") else super().to_torch(path, array, layout)


_TORCH_PLACES = {
    r"^norm$": "layernorm",
    r"^head$": "classifier",
    r"^stem/": "stages/0/embedding/",
    r"/downsample/": "/embedding/",
    r"/embedding/conv$": "/embedding/convolution_embeddings/projection",
    r"/embedding/norm$": "/embedding/convolution_embeddings/normalization",
    r"/attention/(query|key|value)/depthwise/": r"/mix/convolution_projection_\1/convolution_projection/",
    r"/convolution_projection/conv$": "/convolution_projection/convolution",
    r"/convolution_projection/norm$": "/convolution_projection/normalization",
    r"/attention/(query|key|value)/linear$": r"/mix/projection_\1",
    r"/attention/project$": "/attention/output/dense",
    r"/mix/": "/attention/attention/",
    r"/expand$": "/intermediate/dense",
    r"/project$": "/output/dense",
    r"/norm1$": "/layernorm_before",
    r"/norm2$": "/layernorm_after",
    r"/blocks/": "/layers/",
    r"^stages/": "cvt/encoder/stages/",
}


class Embedding(nnx.Module):
    """Convolution, LayerNorm, and a class token beside the map if it is wanted."""

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        window: tuple[int, int, int],
        *,
        class_token: bool,
        role: Role,
        precision: Precision,
    ) -> None:
        for_conv, for_token = init.spawn(2)
        size, stride, padding = window
        self.conv = Conv(for_conv, inputs, outputs, size, stride=stride, padding=padding, role=role)
        self.norm = LayerNorm(outputs, epsilon=EPSILON)
        self.class_token = for_token.kernel((outputs,), Role.POSITION) if class_token else None
        self.precision = precision

    def __call__(self, x: jax.Array, *, training: bool = False) -> State:
        """[B,H,W,inputs] -> [B,H',W',outputs], by the stride."""
        del training
        x = self.norm(self.conv(x.astype(self.precision.compute))).astype(self.precision.residual)
        if self.class_token is None:
            return x
        return jnp.broadcast_to(self.class_token[...].astype(x.dtype), (x.shape[0], 1, x.shape[-1])), x


class ConvProjection(nnx.Module):
    """3x3 depthwise convolution and BatchNorm of the map, and a linear layer over its tokens and the class token."""

    def __init__(self, init: Initializer, channels: int, *, stride: int) -> None:
        for_depthwise, for_linear = init.spawn(2)
        self.depthwise = ConvNorm(for_depthwise, channels, channels, 3, stride=stride, depthwise=True)
        self.linear = Linear(for_linear, channels, channels)

    def __call__(self, tokens: jax.Array, grid: tuple[int, int], *, training: bool) -> jax.Array:
        """[B,1+H W,C] or [B,H W,C] -> [B,1+H' W',C] or [B,H' W',C], H' = ceil(H / stride)."""
        batch, _, channels = tokens.shape
        others = tokens.shape[1] - grid[0] * grid[1]
        x = self.depthwise(tokens[:, others:].reshape(batch, *grid, channels), training=training)
        return self.linear(jnp.concatenate([tokens[:, :others], x.reshape(batch, -1, channels)], 1))


class ConvAttention(nnx.Module):
    """Self-attention with convolutions before queries, keys and values. Keys and values are of a map of half the side.

    Scores are divided by the root of all channels, not of those of a head.
    """

    def __init__(self, init: Initializer, channels: int, heads: int) -> None:
        for_query, for_key, for_value, for_project = init.spawn(4)
        self.query = ConvProjection(for_query, channels, stride=1)
        self.key = ConvProjection(for_key, channels, stride=2)
        self.value = ConvProjection(for_value, channels, stride=2)
        self.project = Linear(for_project, channels, channels)
        self.heads = heads

    def __call__(self, tokens: jax.Array, grid: tuple[int, int], *, training: bool) -> jax.Array:
        """[B,N,C] -> [B,N,C], N = H W, or one more with a class token."""
        batch, _, channels = tokens.shape
        query, key, value = (
            projection(tokens, grid, training=training).reshape(batch, -1, self.heads, channels // self.heads)
            for projection in (self.query, self.key, self.value)
        )
        mixed = dot_product_attention(query, key, value, scale=channels**-0.5)  # [B,N,heads,C/heads]
        return self.project(mixed.reshape(tokens.shape))


class Block(nnx.Module):
    """LayerNorm, attention, residual; LayerNorm, wide layer, GELU, narrow layer, residual."""

    branches = 2

    def __init__(self, init: Initializer, channels: int, heads: int, expansion: int, precision: Precision) -> None:
        for_attention, for_expand, for_project = init.spawn(3)
        self.norm1 = LayerNorm(channels, epsilon=EPSILON)
        self.attention = ConvAttention(for_attention, channels, heads)
        self.norm2 = LayerNorm(channels, epsilon=EPSILON)
        self.expand = Linear(for_expand, channels, expansion * channels)
        self.project = Linear(for_project, expansion * channels, channels)
        self.dtype = precision.compute

    def __call__(self, x: State, *, training: bool = False, scales: BranchScales = None) -> State:
        """Returns a state of the same shape; ``scales`` has those of the two branches, [B] each."""
        first, second = scales or (None, None)
        tokens, grid = _tokens(x)  # [B,N,C]
        branch = self.attention(self.norm1(tokens).astype(self.dtype), grid, training=training)
        tokens = add_branch(tokens, branch, first)
        branch = ACTIVATIONS["gelu"](self.expand(self.norm2(tokens).astype(self.dtype)))  # [B,N,expansion C]
        tokens = add_branch(tokens, self.project(branch), second)
        if isinstance(x, tuple):
            return tokens[:, :1], tokens[:, 1:].reshape(x[1].shape)
        return tokens.reshape(x.shape)


def _tokens(x: State) -> tuple[jax.Array, tuple[int, int]]:
    """Returns the tokens of a state, the class token first, and the height and width of its map."""
    before, x = ([x[0]], x[1]) if isinstance(x, tuple) else ([], x)
    batch, height, width, channels = x.shape
    return jnp.concatenate([*before, x.reshape(batch, height * width, channels)], 1), (height, width)


class CvT(Model):
    """Stages that each begin with a convolution, LayerNorm, linear head on the class token of the last stage."""

    reads_last_map = False

    def __init__(self, architecture: CvTArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        dims, precision, last = architecture.dims, options.precision, len(architecture.dims) - 1
        for_stem, for_head, *for_stages = options.init.spawn(2 + len(dims))
        self.stem = Embedding(
            for_stem,
            options.in_channels,
            dims[0],
            STEMS[architecture.stem],
            class_token=False,
            role=Role.STEM,
            precision=precision,
        )
        stages = []
        for index, (for_stage, depth, dim) in enumerate(zip(for_stages, architecture.depths, dims, strict=True)):
            for_embedding, *for_blocks = for_stage.spawn(1 + depth)
            embedding = None
            if index:
                kind = {"class_token": index == last, "role": Role.CONVOLUTION, "precision": precision}
                embedding = Embedding(for_embedding, dims[index - 1], dim, (3, 2, 1), **kind)
            heads = architecture.heads[index]
            blocks = [Block(init, dim, heads, architecture.expansion, precision) for init in for_blocks]
            stages.append(Stage(blocks, downsample=embedding, remat=options.remat))
        self.stages = nnx.List(stages)
        self.norm = LayerNorm(dims[-1], epsilon=EPSILON)
        self.head = Linear(for_head, dims[-1], options.num_classes, role=Role.HEAD)

    def to_map(self, x: State, image_size: tuple[int, int]) -> jax.Array:
        """See `Model.to_map`; the class token is left out."""
        del image_size
        return x[1] if isinstance(x, tuple) else x

    def classify(self, x: State, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        token = self.norm(x[0][:, 0].astype(jnp.float32))  # [B,C]
        return self.head(dropout(token, self.dropout, dropout_key(key)))
