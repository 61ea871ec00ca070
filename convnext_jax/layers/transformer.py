"""The block that most Vision Transformers are made of."""

from collections.abc import Callable

import jax
from flax import nnx

from convnext_jax.layers.activation import ACTIVATIONS
from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.normalization import LayerNorm
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.stochastic import BranchScales, add_branch
from convnext_jax.precision import Precision


class TransformerBlock(nnx.Module):
    """LayerNorm, attention, residual; LayerNorm, wide layer, GELU, narrow layer, residual.

    Args:
      init: draws the parameters.
      make_attention: builds the attention, called with what draws its parameters. The attention is a function of the
        normalized tokens alone.
      channels: C of a token.
      hidden: channels of the wide layer.
      precision: what the block computes in.
      epsilon: of the norms.

    Reference:
      Dosovitskiy et al., `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_, 2021.
    """

    branches = 2

    def __init__(
        self,
        init: Initializer,
        make_attention: Callable[[Initializer], Callable[[jax.Array], jax.Array]],
        channels: int,
        hidden: int,
        *,
        precision: Precision,
        epsilon: float = 1e-6,
    ) -> None:
        for_attention, for_expand, for_project = init.spawn(3)
        self.norm1 = LayerNorm(channels, epsilon=epsilon)
        self.attention = make_attention(for_attention)
        self.norm2 = LayerNorm(channels, epsilon=epsilon)
        self.expand = Linear(for_expand, channels, hidden)
        self.project = Linear(for_project, hidden, channels)
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        """[B,...,C] -> [B,...,C]; ``scales`` has those of the two branches, [B] each."""
        del training
        first, second = scales or (None, None)
        x = add_branch(x, self.attention(self.norm1(x).astype(self.dtype)), first)
        branch = ACTIVATIONS["gelu"](self.expand(self.norm2(x).astype(self.dtype)))  # [B,...,hidden]
        return add_branch(x, self.project(branch), second)
