"""Squeeze-and-excitation: each channel is scaled by a function of the means of all channels."""

from collections.abc import Callable

import jax
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.pooling import global_average_pool


class SqueezeExcitation(nnx.Module):
    """``x * gate(W2 activation(W1 mean(x)))``, with the mean over the map.

    Args:
      init: draws the kernels.
      channels: of the map.
      squeezed: channels in between.
      activation: after the first layer.
      gate: after the second.

    Reference:
      Hu et al., `Squeeze-and-Excitation Networks <https://arxiv.org/abs/1709.01507>`_, 2018.
    """

    def __init__(
        self,
        init: Initializer,
        channels: int,
        squeezed: int,
        *,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    ) -> None:
        for_reduce, for_expand = init.spawn(2)
        self.reduce = Linear(for_reduce, channels, squeezed)
        self.expand = Linear(for_expand, squeezed, channels)
        self.activation = activation
        self.gate = gate

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,channels] -> [B,H,W,channels]."""
        squeezed = global_average_pool(x).astype(x.dtype)  # [B,channels]
        scale = self.gate(self.expand(self.activation(self.reduce(squeezed))))
        return x * scale[:, None, None]
