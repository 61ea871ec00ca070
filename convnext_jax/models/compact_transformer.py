"""Compact Transformers: ViT-Lite, CVT (the Compact Vision Transformer) and CCT (the Compact Convolutional Transformer).

Hassani et al., `Escaping the Big Data Paradigm with Compact Transformers <https://arxiv.org/abs/2104.05704>`_, 2021.
Parameters and answers are those of the authors' SHI-Labs/Compact-Transformers. Its CVT is not CvT, the Convolutional
Vision Transformer of Wu et al. (`convnext_jax.models.cvt`).
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.attention import MultiHeadAttention, SequencePooling
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.layers.pooling import max_pool
from convnext_jax.layers.positions import resize_positions, sinusoidal_positions
from convnext_jax.layers.stochastic import BranchScales, add_branch, dropout
from convnext_jax.models.interface import (
    TORCH_LEAVES,
    Architecture,
    BuildOptions,
    Model,
    Stage,
    dropout_key,
    even_depths,
    number_blocks,
)
from convnext_jax.precision import Precision

STAGES = 4  # parts of equal depth, so that `features` returns four maps
POOLS = ("class_token", "sequence")
POSITIONS = ("learned", "sinusoidal")
EPSILON = 1e-5
_INNER_CHANNELS = 64  # between two convolutions of the tokenizer


@dataclasses.dataclass(frozen=True)
class CompactTransformerArchitecture(Architecture):
    """What a Compact Transformer is made of.

    Attributes:
      dim: channels of a token.
      depth: number of blocks, 4 or more.
      heads: of the attention; they divide the channels.
      expansion: channels inside the MLP over channels outside.
      convolutions: of the tokenizer, each with a ReLU and a 3x3 max pool with stride 2. 0 makes tokens of patches.
      kernel_size: side of the windows of those convolutions, 3 or more and odd, or of the patches, in pixels.
      pool: what the head reads, one of `POOLS`: a class token, or a weighted mean of all tokens.
      positions: one of `POSITIONS`: a learned table, or sines and cosines that are no parameters.
      image_size: side of the images that the learned table is made for, in pixels. For other images it is resized,
        bicubically, in each call.
    """

    dim: int = 256
    depth: int = 7
    heads: int = 4
    expansion: int = 2
    convolutions: int = 1
    kernel_size: int = 3
    pool: str = "sequence"
    positions: str = "learned"
    image_size: int = 32

    def __post_init__(self) -> None:
        for field in ("dim", "heads", "expansion", "kernel_size"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")
        check("depth", self.depth, self.depth >= STAGES, f"{STAGES} or more")
        check("heads", self.heads, self.dim % self.heads == 0, f"a divisor of dim={self.dim}")
        check("convolutions", self.convolutions, self.convolutions >= 0, "0 or more")
        odd = self.kernel_size >= 3 and self.kernel_size % 2 == 1
        check("kernel_size", self.kernel_size, odd or not self.convolutions, "3 or more and odd")
        for field, table in {"pool": POOLS, "positions": POSITIONS}.items():
            if (value := getattr(self, field)) not in table:
                raise UserError(f"{field}={value!r}: unknown; {nearest(value, table)}")
        large = self.image_size >= self.smallest_image
        check("image_size", self.image_size, large, f"{self.smallest_image} or more")

    def build(self, options: BuildOptions) -> "CompactTransformer":
        """See `Architecture.build`."""
        return CompactTransformer(self, options)

    @property
    def stride(self) -> int:
        """Distance between the windows of a convolution of the tokenizer, in pixels."""
        return max(1, self.kernel_size // 2 - 1) if self.convolutions else self.kernel_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of tokens of an image."""
        if not self.convolutions:
            return height // self.kernel_size, width // self.kernel_size
        for _ in range(self.convolutions):
            # The pool halves upwards what the convolution has divided upwards.
            height, width = (math.ceil(math.ceil(side / self.stride) / 2) for side in (height, width))
        return height, width

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one pixel for each stride, so that none is padding alone."""
        return (2 * self.stride) ** self.convolutions if self.convolutions else self.kernel_size

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return f"a kernel_size below {self.kernel_size}"

    def adapt_weight(self, path: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """See `Architecture.adapt_weight`; a table of positions is resized too."""
        if path == "stem/position" and weight.shape[1:] == shape[1:]:
            others, (rows, columns) = self._others, self.grid(self.image_size, self.image_size)
            return np.asarray(resize_positions(jnp.asarray(weight), (rows, columns), others=others))
        return super().adapt_weight(path, weight, shape)

    @property
    def _others(self) -> int:
        """Number of tokens before those of the image."""
        return 1 if self.pool == "class_token" else 0

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`; vit-pytorch has the authors' names for CCT."""
        return ("SHI-Labs",)

    @property
    def torch_constants(self) -> tuple[str, ...]:
        """See `Architecture.torch_constants`."""
        return ("classifier.positional_emb",) if self.positions == "sinusoidal" else ()

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        if path in _TORCH_TOKENS:
            return _TORCH_TOKENS[path]
        place, _, leaf = path.rpartition("/")
        place = number_blocks(place, even_depths(self.depth, STAGES), "classifier/blocks")
        if convolution := re.match(r"stem/more/(\d+)", place):
            place = f"tokenizer/conv_layers/{int(convolution[1]) + 1}/0"
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{TORCH_LEAVES[leaf]}"

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the class token and the positions have axes of a batch."""
        if path in _TORCH_TOKENS:
            return array.reshape(1, -1, array.shape[-1])
        return super().to_torch(path, array, layout)


_TORCH_TOKENS = {"stem/class_token": "classifier.class_emb", "stem/position": "classifier.positional_emb"}
_TORCH_PLACES = {
    r"^stem/conv$": "tokenizer/conv_layers/0/0",
    r"/attention/qkv$": "/self_attn/qkv",
    r"/attention/project$": "/self_attn/proj",
    r"/expand$": "/linear1",
    r"/project$": "/linear2",
    r"^norm$": "classifier/norm",
    r"^pool/score$": "classifier/attention_pool",
    r"^head$": "classifier/fc",
}


class Tokenizer(nnx.Module):
    """Convolutions, each with a ReLU and a max pool, or patches; a class token where there is one; positions."""

    def __init__(self, init: Initializer, inputs: int, architecture: CompactTransformerArchitecture) -> None:
        for_position, *for_convs = init.spawn(1 + max(1, architecture.convolutions))
        channels = [inputs, *[_INNER_CHANNELS] * (len(for_convs) - 1), architecture.dim]
        self.conv, *more = [
            _tokenizer_conv(each, channels[index], channels[index + 1], architecture)
            for index, each in enumerate(for_convs)
        ]
        self.more = nnx.List(more)
        self.pools = architecture.convolutions > 0
        self.others = 1 if architecture.pool == "class_token" else 0
        self.class_token = constant(architecture.dim, 0.0, Role.POSITION) if self.others else None
        rows, columns = architecture.grid(architecture.image_size, architecture.image_size)
        shape = (self.others + rows * columns, architecture.dim)
        learned = architecture.positions == "learned"
        self.position = for_position.with_deviation(0.2).kernel(shape, Role.POSITION) if learned else None

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,N,dim], one token for each place of the grid after the class token."""
        del training
        for conv in (self.conv, *self.more):
            x = conv(x)
            if self.pools:
                x = max_pool(jax.nn.relu(x), 3, stride=2, padding=1)
        batch, height, width, dim = x.shape
        x = x.reshape(batch, height * width, dim)
        if self.class_token is not None:
            tokens = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (batch, 1, dim))
            x = jnp.concatenate([tokens, x], 1)
        if self.position is None:
            return x + jnp.asarray(sinusoidal_positions(x.shape[1], dim), x.dtype)
        return x + resize_positions(self.position[...], (height, width), others=self.others).astype(x.dtype)


def _tokenizer_conv(init: Initializer, inputs: int, outputs: int, architecture: CompactTransformerArchitecture) -> Conv:
    size, stride, convolutional = architecture.kernel_size, architecture.stride, architecture.convolutions > 0
    init = init.with_deviation(math.sqrt(2.0 / (size**2 * inputs)))  # He et al. 2015, by the inputs
    padding = size // 2 if convolutional else 0
    return Conv(init, inputs, outputs, size, stride=stride, padding=padding, bias=not convolutional, role=Role.STEM)


class Block(nnx.Module):
    """LayerNorm, attention, residual; LayerNorm; wide layer, GELU, narrow layer, residual.

    The second norm is not inside of the branch, as in other Vision Transformers: what it returns is what the branch is
    added to.
    """

    branches = 2

    def __init__(self, init: Initializer, architecture: CompactTransformerArchitecture, precision: Precision) -> None:
        for_attention, for_expand, for_project = init.spawn(3)
        dim, hidden = architecture.dim, architecture.expansion * architecture.dim
        self.pre_norm = LayerNorm(dim, epsilon=EPSILON)
        self.attention = MultiHeadAttention(for_attention, dim, architecture.heads, qkv_bias=False)
        self.norm1 = LayerNorm(dim, epsilon=EPSILON)
        self.expand = Linear(for_expand, dim, hidden)
        self.project = Linear(for_project, hidden, dim)
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,N,dim] -> [B,N,dim]; ``scales`` has those of the two branches, [B] each."""
        del training
        first, second = scales or (None, None)
        x = self.norm1(add_branch(x, self.attention(self.pre_norm(x).astype(self.dtype)), first))
        branch = ACTIVATIONS["gelu"](self.expand(x.astype(self.dtype)))  # [B,N,hidden]
        return add_branch(x, self.project(branch), second)


class CompactTransformer(Model):
    """Tokenizer, blocks in four equal parts, LayerNorm, sequence pooling or class token, linear head."""

    architecture: CompactTransformerArchitecture

    def __init__(self, architecture: CompactTransformerArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_pool, for_head, for_blocks = options.init.spawn(4)
        self.stem = Tokenizer(for_stem, options.in_channels, architecture)
        blocks = iter([Block(init, architecture, options.precision) for init in for_blocks.spawn(architecture.depth)])
        depths = even_depths(architecture.depth, STAGES)
        self.stages = nnx.List([Stage([next(blocks) for _ in range(n)], remat=options.remat) for n in depths])
        self.norm = LayerNorm(architecture.dim, epsilon=EPSILON)
        self.reads_last_map = architecture.pool == "sequence"
        self.pool = SequencePooling(for_pool, architecture.dim) if self.reads_last_map else None
        self.head = Linear(for_head, architecture.dim, options.num_classes, role=Role.HEAD)

    def to_map(self, x: jax.Array, image_size: tuple[int, int]) -> jax.Array:
        """See `Model.to_map`; the class token is left out."""
        height, width = self.architecture.grid(*image_size)
        return x[:, x.shape[1] - height * width :].reshape(x.shape[0], height, width, x.shape[-1])

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        x = self.norm(x.astype(jnp.float32))  # [B,N,dim]
        x = x[:, 0] if self.pool is None else self.pool(x)  # [B,dim]
        return self.head(dropout(x, self.dropout, dropout_key(key)))
