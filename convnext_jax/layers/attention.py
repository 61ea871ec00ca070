"""Multi-head self-attention, over a sequence and inside of the windows of a map, and pooling by attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.layers.convolution import Linear
from convnext_jax.layers.parameters import Initializer, Role
from convnext_jax.layers.windows import from_windows, to_windows
from convnext_jax.ops.attention import dot_product_attention


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

    def __call__(self, x: jax.Array, *, bias: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        """[B,N,C] -> [B,N,C].

        Args:
          x: the sequences.
          bias: added to the scores of queries and keys, float32 [1,heads,N,N].
          mask: which query may see which key, bool [B,1,N,N]; None lets each see all.
        """
        batch, length, channels = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, channels // self.heads)
        mixed = dot_product_attention(
            qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], bias=bias, mask=mask
        )  # [B,N,heads,C/heads]
        return self.project(mixed.reshape(batch, length, channels))


class RelativePositionBias(nnx.Module):
    """A bias for each pair of places in a window, by how many rows and columns apart they are.

    Args:
      init: draws the table, [(2 window - 1)^2, heads], with a deviation of 0.02.
      window: side of the window, in pixels.
      heads: of the attention.

    Reference:
      Liu et al., `Swin Transformer <https://arxiv.org/abs/2103.14030>`_, 2021, section 3.2.
    """

    def __init__(self, init: Initializer, window: int, heads: int) -> None:
        self.table = init.with_scheme("normal").kernel(((2 * window - 1) ** 2, heads), Role.POSITION)
        self.window = window

    def __call__(self) -> jax.Array:
        """Returns float32 [1,heads,N,N], N = window^2."""
        count = self.window**2
        bias = self.table[...][_relative_positions(self.window)]  # [N N,heads]
        return bias.reshape(1, count, count, -1).transpose(0, 3, 1, 2)


@functools.cache
def _relative_positions(window: int) -> np.ndarray:
    """Returns for each query and key of a window the row of the table, int [N N]."""
    rows, columns = np.divmod(np.arange(window**2), window)
    apart = [places[:, None] - places[None, :] + window - 1 for places in (rows, columns)]
    return (apart[0] * (2 * window - 1) + apart[1]).reshape(-1)


def resize_relative_positions(table: jax.Array, window: int) -> jax.Array:
    """Returns the table of `RelativePositionBias` for another window, resized bicubically.

    Args:
      table: float32 [(2 w - 1)^2, heads].
      window: the new side, in pixels.
    """
    old, new, heads = round(table.shape[0] ** 0.5), 2 * window - 1, table.shape[1]
    return jax.image.resize(table.reshape(old, old, heads), (new, new, heads), "cubic").reshape(new**2, heads)


class WindowAttention(nnx.Module):
    """Self-attention inside of the windows of a map, with a bias by relative position.

    Shifted windows start half a window later. The map is rolled for that, and a place sees only those of its window
    that are its neighbors in the map. A map that is no whole number of windows is filled up with zeros at its lower and
    right edge, which take part like other places, as in torchvision and in the authors' networks for detection. Along
    an axis that one window covers, nothing is shifted.

    Args:
      init: draws the parameters.
      channels: C, a multiple of the heads.
      heads: number of heads.
      window: side of the windows, in pixels.
      shifted: whether the windows are shifted.

    Reference:
      Liu et al., `Swin Transformer <https://arxiv.org/abs/2103.14030>`_, 2021, section 3.2.
    """

    def __init__(self, init: Initializer, channels: int, heads: int, *, window: int, shifted: bool) -> None:
        for_attention, for_position = init.spawn(2)
        self.attention = MultiHeadAttention(for_attention, channels, heads)
        self.position = RelativePositionBias(for_position, window, heads)
        self.window = window
        self.shifted = shifted

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]."""
        batch, height, width, _ = x.shape
        window = self.window
        x = jnp.pad(x, ((0, 0), (0, -height % window), (0, -width % window), (0, 0)))
        padded = x.shape[1:3]
        shifts = [window // 2 if self.shifted and side > window else 0 for side in padded]
        mask = None
        if any(shifts):
            x = jnp.roll(x, [-shift for shift in shifts], (1, 2))
            seen = _neighbors(padded, window, (shifts[0], shifts[1]))[:, None]  # [windows,1,N,N]
            mask = jnp.broadcast_to(seen, (batch, *seen.shape)).reshape(-1, *seen.shape[1:])
        x = self.attention(to_windows(x, window), bias=self.position(), mask=mask)
        x = from_windows(x, window, padded)
        if any(shifts):
            x = jnp.roll(x, shifts, (1, 2))
        return x[:, :height, :width]


@functools.cache
def _neighbors(size: tuple[int, int], window: int, shifts: tuple[int, int]) -> np.ndarray:
    """Returns which places of a window were on the same side of the map's edge before it was rolled.

    Args:
      size: height and width of the map, multiples of the window.
      window: its side, in pixels.
      shifts: by how much the map was rolled, down and across.

    Returns:
      bool [windows,N,N].
    """
    # Only the last window of an axis has places from both ends of the map.
    rows, columns = (np.arange(side) >= side - shift for side, shift in zip(size, shifts, strict=True))
    wrapped = to_windows((2 * rows[:, None] + columns)[None, :, :, None], window)[:, :, 0]  # [windows,N]
    return wrapped[:, :, None] == wrapped[:, None, :]


class SequencePooling(nnx.Module):
    """The mean of a sequence, weighted by a softmax over one linear score of each token.

    Args:
      init: draws the kernel of the scores.
      channels: C of a token.

    Reference:
      Hassani et al., `Escaping the Big Data Paradigm with Compact Transformers <https://arxiv.org/abs/2104.05704>`_,
      2021, section 3.2.
    """

    def __init__(self, init: Initializer, channels: int) -> None:
        self.score = Linear(init, channels, 1, role=Role.HEAD)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,N,C] -> [B,C]."""
        return (jax.nn.softmax(self.score(x), axis=1) * x).sum(1)
