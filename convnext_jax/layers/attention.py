"""Multi-head self-attention."""

import jax
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Initializer


class MultiHeadAttention(nnx.Module):
    """Self-attention over a sequence.

    Args:
      init: draws the kernels.
      channels: C, a multiple of the heads.
      heads: number of heads.
      qkv_bias: whether queries, keys and values have a bias.

    Reference:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017.
    """

    def __init__(self, init: Initializer, channels: int, heads: int, *, qkv_bias: bool = True) -> None:
        for_qkv, for_project = init.spawn(2)
        self.qkv = Linear(for_qkv, channels, 3 * channels, bias=qkv_bias)
        self.project = Linear(for_project, channels, channels)
        self.heads = heads

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,N,C] -> [B,N,C]."""
        batch, length, channels = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, channels // self.heads)
        mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])  # [B,N,heads,C/heads]
        return self.project(mixed.reshape(batch, length, channels))
