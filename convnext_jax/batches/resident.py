"""A data set that lives on the devices, and the batch of a step as a function of (seed, step)."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.data.dataset import Split
from convnext_jax.keys import Stream, stream_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The examples of a step.

    Attributes:
      images: uint8 [B, H, W, 3].
      labels: int32 [B], in [0, classes).
      indices: which examples of the split they are, int32 [B].
      epoch: that the step lies in, int32 scalar, from 0.
    """

    images: jax.Array
    labels: jax.Array
    indices: jax.Array
    epoch: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentSplit:
    """A split on the devices, whole on each.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: int32 [N], in [0, classes).
    """

    images: jax.Array
    labels: jax.Array

    @property
    def num_examples(self) -> int:
        """N, the number of examples."""
        return self.images.shape[0]

    def take(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, 3] uint8 and labels [B] int32 at the indices [B], each in [0, N)."""
        # Every index is in range by construction, so XLA need not clamp or fill.
        return (
            self.images.at[indices].get(mode="promise_in_bounds"),
            self.labels.at[indices].get(mode="promise_in_bounds"),
        )


def put_split(split: Split, sharding: jax.sharding.Sharding) -> ResidentSplit:
    """Copies a split from the host to the devices of a sharding."""
    images, labels = (
        jax.make_array_from_callback(array.shape, sharding, lambda index, array=array: np.asarray(array[index]))
        for array in (split.images, split.labels)
    )
    return ResidentSplit(images, labels)


def epoch_order(seed: int | jax.Array, epoch: int | jax.Array, num_examples: int) -> jax.Array:
    """The order of the examples in an epoch: a uniformly random permutation, int32 [N]."""
    return jax.random.permutation(stream_key(seed, Stream.ORDER, epoch), num_examples).astype(jnp.int32)


class EpochOrders:
    """The order of the epoch at hand, drawn once for all calls to the device that lie in it.

    A draw sorts twice: on a CPU 50,000 examples take 34 ms (benchmarks/notes.md), as long as a step of a small network.

    Args:
      seed: of the run.
      num_examples: N.
      sharding: where the order lies.
    """

    def __init__(self, seed: int, num_examples: int, sharding: jax.sharding.Sharding) -> None:
        self._seed = np.uint32(seed)
        self._draw = jax.jit(functools.partial(epoch_order, num_examples=num_examples), out_shardings=sharding)
        self._drawn: tuple[int, jax.Array] | None = None

    def order(self, epoch: int) -> jax.Array:
        """That of an epoch, counted from 0, int32 [N]."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(self._seed, np.int32(epoch))
        return self._drawn[1]


def batch_indices(order: jax.Array, step: int | jax.Array, batch_size: int) -> jax.Array:
    """The examples of a step, int32 [B].

    Args:
      order: the order of the step's epoch, int32 [N].
      step: counted from the start of the run. An epoch has N // B steps, so each example comes at most once in it
        and a remainder, other examples in every epoch, stays out.
      batch_size: B, at most N.
    """
    steps_per_epoch = order.shape[0] // batch_size
    return jax.lax.dynamic_slice_in_dim(order, (step % steps_per_epoch) * batch_size, batch_size)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Pixels as the network takes them, ``(x / 255 - mean) / std`` by channel.

    Args:
      images: uint8 [B, H, W, C].
      mean: C channel means of the training split on the scale [0, 1].
      std: C channel standard deviations on the same scale.

    Returns:
      float32 [B, H, W, C].
    """
    scale = (1.0 / (255.0 * np.asarray(std, np.float64))).astype(np.float32)
    offset = (np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)
    return images.astype(jnp.float32) * scale - offset


def scale(images: jax.Array, size: int | None) -> jax.Array:
    """Scales images, float32 [B, H, W, C], to a side of ``size`` pixels, bilinearly; leaves them alone if None."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    return jax.image.resize(images, (images.shape[0], size, size, images.shape[-1]), "linear")
