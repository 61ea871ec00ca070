"""A data set that lives on the devices, so that no input pipeline can fall behind."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.order import EpochOrders
from convnext_jax.batches.source import Batch, labels_of, shapes_of
from convnext_jax.data.dataset import Split
from convnext_jax.sharding import Sharding, abstract, put


@functools.partial(jax.tree_util.register_dataclass, data_fields=("rows", "labels"), meta_fields=("image_shape",))
@dataclasses.dataclass(frozen=True)
class ResidentSplit:
    """A split on the devices, whole on each.

    Attributes:
      rows: the images as flat rows of bytes, uint8 [N, H W C]. A TPU would pad each image of three channels to 128, and
        copy the whole data set in each call (docs/performance.md).
      labels: what the task learns from, a tree of arrays [N,...]; see `convnext_jax.batches.source.labels_of`.
      image_shape: (H, W, C).
    """

    rows: jax.Array
    labels: Any
    image_shape: tuple[int, int, int]

    @property
    def num_examples(self) -> int:
        """N, the number of examples."""
        return self.rows.shape[0]

    def take(self, indices: jax.Array) -> tuple[jax.Array, Any]:
        """Returns images, uint8 [B,H,W,C], and labels [B,...] at the indices [B], each in [0, N)."""
        # Every index is in range by construction, so XLA need not clamp or fill.
        rows, labels = jax.tree.map(
            lambda array: array.at[indices].get(mode="promise_in_bounds"), (self.rows, self.labels)
        )
        return rows.reshape(-1, *self.image_shape), labels


def put_split(split: Split, sharding: Sharding) -> ResidentSplit:
    """Copies a split from the host to the devices."""
    images = split.images
    assert isinstance(images, np.ndarray)  # pictures that stay encoded are streamed
    rows = images.reshape(len(images), -1)

    def copied(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, sharding.replicated, lambda index: np.asarray(array[index]))

    rows, labels = jax.tree.map(copied, (rows, labels_of(split)))
    return ResidentSplit(rows, labels, (images.shape[1], images.shape[2], images.shape[3]))


def abstract_split(split: Split, sharding: Sharding) -> ResidentSplit:
    """Returns the shapes, dtypes and shardings of what `put_split` returns."""
    count, height, width, channels = split.images.shape
    rows, labels = abstract(shapes_of(split, (count,)), sharding.replicated)
    return ResidentSplit(rows, labels, (height, width, channels))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ResidentFeed:
    """What a `ResidentSource` hands to a call to the device.

    Attributes:
      split: the training split, of N examples.
      order: their order in the epoch, int32 [N].
      epoch: of the call, int32 scalar.
      first_position: number of the call's first step in the epoch, int32 scalar.
    """

    split: ResidentSplit
    order: jax.Array
    epoch: jax.Array
    first_position: jax.Array


class ResidentSource:
    """The batches of a split on the devices; see `convnext_jax.batches.source.BatchSource`.

    An epoch has N // B steps. Each example comes at most once in it, and a remainder, other examples in every epoch, is
    left out.

    Args:
      split: the training split, or its shapes to compile with.
      seed: of the run.
      batch_size: B, at most N, over all devices together.
      sharding: how arrays lie on the devices.
    """

    def __init__(self, split: ResidentSplit, *, seed: int, batch_size: int, sharding: Sharding) -> None:
        self.split = split
        self.batch_size = batch_size
        self._sharding = sharding
        self._orders = EpochOrders(seed, split.num_examples, sharding.replicated)

    @property
    def num_examples(self) -> int:
        """See `BatchSource`."""
        return self.split.num_examples

    @property
    def steps_per_epoch(self) -> int:
        """See `BatchSource`."""
        return self.split.num_examples // self.batch_size

    def feed(self, first_step: int, num_steps: int) -> ResidentFeed:
        """See `BatchSource.feed`."""
        del num_steps
        epoch, position = divmod(first_step, self.steps_per_epoch)
        numbers = put((np.int32(epoch), np.int32(position)), self._sharding.replicated)
        return ResidentFeed(self.split, self._orders.order(epoch), *numbers)

    def batch(self, feed: ResidentFeed, index: jax.Array) -> Batch:
        """See `BatchSource.batch`."""
        start = (feed.first_position + index) * self.batch_size
        indices = jax.lax.dynamic_slice_in_dim(feed.order, start, self.batch_size)
        indices = jax.lax.with_sharding_constraint(indices, self._sharding.batch)
        images, labels = feed.split.take(indices)
        return Batch(images, labels, indices, feed.epoch)

    def abstract_feed(self) -> ResidentFeed:
        """See `BatchSource.abstract_feed`."""
        feed: Any = (jax.ShapeDtypeStruct((self.num_examples,), jnp.int32), *[jax.ShapeDtypeStruct((), jnp.int32)] * 2)
        return abstract(ResidentFeed(self.split, *feed), self._sharding.replicated)

    def close(self) -> None:
        """See `BatchSource.close`. Nothing reads for it."""
