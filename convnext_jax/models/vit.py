"""The Vision Transformer.

Dosovitskiy et al., `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_, 2021; the tiny and small sizes
are those of Touvron et al., `DeiT <https://arxiv.org/abs/2012.12877>`_, 2021. Parameters and answers are those of timm.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.errors import check
from convnext_jax.layers.attention import MultiHeadAttention
from convnext_jax.layers.convolution import Conv, Linear
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.layers.positions import resize_positions
from convnext_jax.layers.stochastic import dropout
from convnext_jax.layers.transformer import TransformerBlock
from convnext_jax.models.interface import (
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


@dataclasses.dataclass(frozen=True)
class ViTArchitecture(Architecture):
    """What a Vision Transformer is made of.

    Attributes:
      dim: channels of a token.
      depth: number of blocks, 4 or more.
      heads: of the attention; they divide the channels.
      patch_size: side of the patches that become tokens, in pixels.
      image_size: side of the images that the table of positions is made for, in pixels. For other images the table is
        resized, bicubically, in each call.
      expansion: channels inside the MLP over channels outside.
    """

    dim: int
    depth: int
    heads: int
    patch_size: int = 16
    image_size: int = 224
    expansion: int = 4

    def __post_init__(self) -> None:
        for field in ("dim", "heads", "patch_size", "expansion"):
            check(field, getattr(self, field), getattr(self, field) >= 1, "1 or more")
        check("depth", self.depth, self.depth >= STAGES, f"{STAGES} or more")
        check("heads", self.heads, self.dim % self.heads == 0, f"a divisor of dim={self.dim}")
        whole = self.image_size >= 1 and self.image_size % self.patch_size == 0
        check("image_size", self.image_size, whole, f"a multiple of patch_size={self.patch_size}")

    def build(self, options: BuildOptions) -> "ViT":
        """See `Architecture.build`."""
        return ViT(self, options)

    @property
    def smallest_image(self) -> int:
        """See `Architecture.smallest_image`: one patch."""
        return self.patch_size

    @property
    def small_image_remedy(self) -> str:
        """See `Architecture`."""
        return f"a patch_size below {self.patch_size}"

    def adapt_weight(self, path: str, weight: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
        """See `Architecture.adapt_weight`; a table of positions is resized too."""
        if path == "stem/position" and weight.shape[1:] == shape[1:]:
            side = round((shape[0] - 1) ** 0.5)
            return np.asarray(resize_positions(jnp.asarray(weight), (side, side), others=1))
        return super().adapt_weight(path, weight, shape)

    @property
    def torch_layouts(self) -> tuple[str, ...]:
        """See `Architecture.torch_layouts`."""
        return ("timm",)

    def torch_name(self, path: str, layout: str) -> str:
        """See `Architecture.torch_name`."""
        if path in _TORCH_TOKENS:
            return _TORCH_TOKENS[path]
        place, _, leaf = path.rpartition("/")
        place = number_blocks(place, even_depths(self.depth, STAGES), "blocks")
        for ours, theirs in _TORCH_PLACES.items():
            place = re.sub(ours, theirs, place)
        return f"{place.replace('/', '.')}.{'bias' if leaf == 'bias' else 'weight'}"

    def to_torch(self, path: str, array: np.ndarray, layout: str) -> np.ndarray:
        """See `Architecture.to_torch`; the class token and the positions have axes of a batch."""
        if path in _TORCH_TOKENS:
            return array.reshape(1, -1, array.shape[-1])
        return super().to_torch(path, array, layout)


_TORCH_TOKENS = {"stem/class_token": "cls_token", "stem/position": "pos_embed"}
_TORCH_PLACES = {
    r"^stem/conv$": "patch_embed/proj",
    r"/attention/project$": "/attn/proj",
    r"/attention/qkv$": "/attn/qkv",
    r"/expand$": "/mlp/fc1",
    r"/project$": "/mlp/fc2",
}


class Tokens(nnx.Module):
    """Patches as tokens after a class token, plus their positions."""

    def __init__(self, init: Initializer, inputs: int, architecture: ViTArchitecture) -> None:
        for_conv, for_position = init.spawn(2)
        dim, size = architecture.dim, architecture.patch_size
        count = (architecture.image_size // size) ** 2
        self.conv = Conv(for_conv, inputs, dim, size, stride=size, role=Role.STEM)
        self.class_token = constant(dim, 0.0, Role.POSITION)
        self.position = for_position.with_scheme("normal").kernel((1 + count, dim), Role.POSITION)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[B,H,W,inputs] -> [B,1+N,dim], N = (H // patch_size) (W // patch_size)."""
        del training
        x = self.conv(x)  # [B,H',W',dim]
        batch, height, width, dim = x.shape
        tokens = jnp.broadcast_to(self.class_token[...].astype(x.dtype), (batch, 1, dim))
        x = jnp.concatenate([tokens, x.reshape(batch, height * width, dim)], 1)
        return x + resize_positions(self.position[...], (height, width), others=1).astype(x.dtype)


def _block(init: Initializer, architecture: ViTArchitecture, precision: Precision) -> TransformerBlock:
    dim = architecture.dim

    def attention(init: Initializer) -> MultiHeadAttention:
        return MultiHeadAttention(init, dim, architecture.heads)

    return TransformerBlock(init, attention, dim, architecture.expansion * dim, precision=precision)


class ViT(Model):
    """Patches as tokens, blocks in four equal parts, LayerNorm, linear head on the class token."""

    reads_last_map = False

    def __init__(self, architecture: ViTArchitecture, options: BuildOptions) -> None:
        super().__init__(architecture, options)
        for_stem, for_head, for_blocks = options.init.spawn(3)
        self.stem = Tokens(for_stem, options.in_channels, architecture)
        blocks = iter([_block(init, architecture, options.precision) for init in for_blocks.spawn(architecture.depth)])
        self.stages = nnx.List(
            [
                Stage([next(blocks) for _ in range(depth)], remat=options.remat)
                for depth in even_depths(architecture.depth, STAGES)
            ]
        )
        self.patch_size = architecture.patch_size
        self.norm = LayerNorm(architecture.dim)
        self.head = Linear(for_head, architecture.dim, options.num_classes, role=Role.HEAD)

    def to_map(self, x: jax.Array, image_size: tuple[int, int]) -> jax.Array:
        """See `Model.to_map`; the class token is left out."""
        height, width = (side // self.patch_size for side in image_size)
        return x[:, 1:].reshape(x.shape[0], height, width, x.shape[-1])

    def classify(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """See `Model.classify`."""
        token = self.norm(x[:, 0].astype(jnp.float32))  # [B,dim]
        return self.head(dropout(token, self.dropout, dropout_key(key)))
