"""The hidden linear layers between the last map and the head of the networks of 2012 to 2014."""

import jax
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.pooling import adaptive_average_pool
from convnext_jax.layers.stochastic import dropout
from convnext_jax.precision import Precision


class HiddenLayers(nnx.Module):
    """Averages over a fixed number of windows, flattened; two linear layers, each with ReLU and dropout.

    Args:
      init: draws the kernels.
      channels: of the map.
      pooled_size: side of the map that is flattened, in pixels; see `adaptive_average_pool`.
      hidden: outputs of each layer.
      dropout: rate of the dropout after each.
      precision: what is computed in.
    """

    def __init__(
        self, init: Initializer, channels: int, *, pooled_size: int, hidden: int, dropout: float, precision: Precision
    ) -> None:
        first, second = init.spawn(2)
        self.first = Linear(first, pooled_size**2 * channels, hidden)
        self.second = Linear(second, hidden, hidden)
        self.pooled_size = pooled_size
        self.dropout = dropout
        self.dtype = precision.compute

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """[B,H,W,channels] -> float32 [B,hidden]; a key turns dropout on."""
        x = adaptive_average_pool(x, self.pooled_size).astype(self.dtype)
        x = x.reshape(x.shape[0], -1)  # [B,pooled_size pooled_size channels]
        for number, layer in enumerate((self.first, self.second)):
            own = None if key is None else jax.random.fold_in(key, number)
            x = dropout(jax.nn.relu(layer(x)), self.dropout, own)
        return x.astype("float32")
