"""A two-dimensional LSTM: along columns and along rows, each in both directions.

Reference:
  Tatsunami and Taki, `Sequencer <https://arxiv.org/abs/2205.01972>`_, 2022, as used by Yang, Wang, Wei 2024 (Computer
  Science 51(6A) 230500196), with a quarter of the channels as hidden size.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Initializer, Role


class LSTM(nnx.Module):
    """One LSTM (Hochreiter and Schmidhuber 1997, with forget gates), in one direction."""

    def __init__(self, init: Initializer, inputs: int, hidden: int) -> None:
        # At a deviation of 0.02 the gates would start half closed and pass a fiftieth of the map on.
        for_input, for_recurrent = init.with_scheme("fan_in").spawn(2)
        self.input = Linear(for_input, inputs, 4 * hidden, role=Role.RECURRENT)
        self.recurrent_kernel = for_recurrent.kernel((hidden, 4 * hidden), Role.RECURRENT)

    def __call__(self, x: jax.Array, *, reverse: bool = False) -> jax.Array:
        """[N,T,inputs] -> [N,T,hidden], from the first of T or, reversed, from the last."""
        gates = self.input(x).swapaxes(0, 1)  # [T,N,4 hidden]
        kernel = self.recurrent_kernel[...].astype(x.dtype)
        zeros = jnp.zeros((x.shape[0], kernel.shape[0]), jnp.float32)

        def step(carry: tuple[jax.Array, jax.Array], gates: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            cell, hidden = carry
            gates = (gates + hidden @ kernel).astype(jnp.float32)
            enter, forget, value, leave = jnp.split(gates, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(value)
            hidden = (jax.nn.sigmoid(leave) * jnp.tanh(cell)).astype(x.dtype)
            return (cell, hidden), hidden

        _, outputs = jax.lax.scan(step, (zeros, zeros.astype(x.dtype)), gates, reverse=reverse)
        return outputs.swapaxes(0, 1)


class BidirectionalLSTM(nnx.Module):
    """An LSTM in each direction of a sequence."""

    def __init__(self, init: Initializer, inputs: int, hidden: int) -> None:
        forward, backward = init.spawn(2)
        self.forward = LSTM(forward, inputs, hidden)
        self.backward = LSTM(backward, inputs, hidden)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N,T,inputs] -> [N,T,2 hidden]."""
        return jnp.concatenate([self.forward(x), self.backward(x, reverse=True)], -1)


class BiLSTM2D(nnx.Module):
    """Bidirectional LSTMs along the columns and the rows of a map, side by side, and a linear layer over both."""

    def __init__(self, init: Initializer, channels: int) -> None:
        vertical, horizontal, project = init.spawn(3)
        hidden = channels // 4
        self.vertical = BidirectionalLSTM(vertical, channels, hidden)
        self.horizontal = BidirectionalLSTM(horizontal, channels, hidden)
        self.project = Linear(project, 4 * hidden, channels, role=Role.RECURRENT)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C], for maps down to 1x1."""
        batch, height, width, channels = x.shape
        down = self.vertical(x.swapaxes(1, 2).reshape(batch * width, height, channels))
        across = self.horizontal(x.reshape(batch * height, width, channels))
        down = down.reshape(batch, width, height, -1).swapaxes(1, 2)
        across = across.reshape(batch, height, width, -1)
        return self.project(jnp.concatenate([down, across], -1))  # [B,H,W,4 hidden] -> [B,H,W,C]
