"""A data set that stays on the host: the batches of a call are read while the devices work on the call before it."""

import dataclasses
import functools
import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.order import call_length
from convnext_jax.batches.rows import Rows, reader_of
from convnext_jax.batches.source import Batch, labels_of, shapes_of
from convnext_jax.data.dataset import Split
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.random_crop import RandomCrop
from convnext_jax.sharding import Sharding, abstract, put

BUDGET = 4  # a split that takes more than this part of a device's memory is not resident


def is_streamed(resident: str, split: Split, limit: int | None) -> bool:
    """Returns whether a training split is streamed, and not kept on the devices.

    >>> split = Split(np.zeros((10, 2, 2, 3), np.uint8), np.zeros(10, np.int32))  # 120 bytes of pixels, 40 of labels
    >>> is_streamed("auto", split, 4 * 160), is_streamed("auto", split, 4 * 160 - 1)
    (False, True)

    Args:
      resident: ``config.data.resident``.
      split: the split.
      limit: bytes of each device's memory; None if that is not known.
    """
    if isinstance(split.images, EncodedImages):
        return True
    if resident != "auto":
        return resident == "never"
    size = math.prod(split.images.shape) + sum(array.nbytes for array in jax.tree.leaves(labels_of(split)))
    return limit is not None and size > limit // BUDGET


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("rows", "labels", "indices", "epoch"), meta_fields=("image_shape",)
)
@dataclasses.dataclass(frozen=True)
class StreamedFeed:
    """What a `StreamingSource` hands to a call to the device: the batches of S steps, zeros beyond the call's own.

    Attributes:
      rows: the images as flat rows of bytes, as in `convnext_jax.batches.resident.ResidentSplit`, uint8 [S,B,H W C].
      labels: what the task learns from, a tree of arrays [S,B,...].
      indices: which examples of the split they are, int32 [S,B].
      epoch: of the call, int32 scalar.
      image_shape: (H, W, C).
    """

    rows: jax.Array
    labels: Any
    indices: jax.Array
    epoch: jax.Array
    image_shape: tuple[int, int, int]


class StreamingSource:
    """The batches of a split on the host; see `convnext_jax.batches.source.BatchSource`.

    Without a crop they are those of a `convnext_jax.batches.resident.ResidentSource`, to the last bit. The compiled
    step is another program, which XLA may round otherwise. Each process reads the rows of its own devices alone. Up to
    three calls are on the devices: one that runs, one that waits for it, and one that is being read.

    Args:
      split: the training split, N examples.
      seed: of the run.
      batch_size: B, at most N, over all devices together.
      sharding: how arrays lie on the devices.
      most_steps: S, the most steps of a call.
      workers: processes that decode, if the split is not decoded; None is one for each core.
      crop: draws a rectangle of each picture, which is decoded in place of the whole; for such a split alone.
    """

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        batch_size: int,
        sharding: Sharding,
        most_steps: int,
        workers: int | None = None,
        crop: RandomCrop | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.most_steps = min(most_steps, self.steps_per_epoch)
        self._sharding = sharding
        _, *shape = split.images.shape
        self._shape = shape[0], shape[1], shape[2]
        self._seed = seed
        self._reader = reader_of(split.images, workers, crop)
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[tuple[int, int], Future[StreamedFeed]] | None = None

    @property
    def num_examples(self) -> int:
        """See `BatchSource`."""
        return len(self.split)

    @property
    def steps_per_epoch(self) -> int:
        """See `BatchSource`."""
        return len(self.split) // self.batch_size

    @functools.cached_property  # not yet if it is only to be compiled for, perhaps for devices that are not here
    def _rows(self) -> Rows:
        """The rows of every batch that this process reads: those of one of its devices after those of another."""
        blocks = self._sharding.batch.addressable_devices_indices_map((self.batch_size,)).values()
        positions = np.concatenate([np.arange(self.batch_size)[block] for block in blocks])
        return Rows(self._seed, self.num_examples, self.batch_size, tuple(positions.tolist()))

    def read_ahead(self, first_step: int) -> None:
        """Begins to read the call that begins at a step, and returns.

        A call that was begun before and is another one, after a jump to another step, is dropped.
        """
        self._begin(first_step, call_length(first_step, self.steps_per_epoch, self.most_steps))

    def feed(self, first_step: int, num_steps: int) -> StreamedFeed:
        """See `BatchSource.feed`.

        Raises:
          UserError: a picture cannot be read.
          Failure: a process that decodes pictures died.
        """
        feed = self._begin(first_step, num_steps).result()
        self.read_ahead(first_step + num_steps)
        return feed

    def _begin(self, first_step: int, num_steps: int) -> "Future[StreamedFeed]":
        call = first_step, num_steps
        if self._ahead is None or self._ahead[0] != call:
            if self._ahead is not None:
                self._ahead[1].cancel()
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "reading")
            self._ahead = call, self._thread.submit(self._read, *call)
        return self._ahead[1]

    def _read(self, first_step: int, num_steps: int) -> StreamedFeed:
        """Reads the call of some steps and puts it on the devices."""
        epoch = first_step // self.steps_per_epoch
        own = len(self._rows.positions)
        rows = np.zeros((self.most_steps, own, math.prod(self._shape)), np.uint8)
        indices = np.zeros((self.most_steps, own), np.int32)
        for number in range(num_steps):
            indices[number] = self._rows.indices(first_step + number)
        self._reader.read(epoch, indices[:num_steps], rows[:num_steps])

        def labels(array: np.ndarray) -> jax.Array:
            chosen = np.asarray(array)[indices]
            chosen[num_steps:] = 0
            return self._put(chosen)

        number = put(np.int32(epoch), self._sharding.replicated)
        return StreamedFeed(
            rows=self._put(rows),
            labels=jax.tree.map(labels, labels_of(self.split)),
            indices=self._put(indices),
            epoch=number,
            image_shape=self._shape,
        )

    def _put(self, array: np.ndarray) -> jax.Array:
        """Returns the rows of all processes [S,B,...], of which the ones of this process are given."""

        def part(index: Any) -> np.ndarray:
            first, stop, _ = index[1].indices(self.batch_size)
            start = self._rows.positions.index(first)
            return array[:, start : start + stop - first]

        whole = (self.most_steps, self.batch_size, *array.shape[2:])
        return jax.make_array_from_callback(whole, self._sharding.batches, part)

    def batch(self, feed: StreamedFeed, index: jax.Array) -> Batch:
        """See `BatchSource.batch`."""

        def of_step(array: jax.Array) -> jax.Array:
            own = jax.lax.dynamic_index_in_dim(array, index, keepdims=False)
            return jax.lax.with_sharding_constraint(own, self._sharding.batch)

        rows, labels, indices = jax.tree.map(of_step, (feed.rows, feed.labels, feed.indices))
        return Batch(rows.reshape(-1, *feed.image_shape), labels, indices, feed.epoch)

    def abstract_feed(self) -> StreamedFeed:
        """See `BatchSource.abstract_feed`."""
        lead = (self.most_steps, self.batch_size)
        indices = jax.ShapeDtypeStruct(lead, jnp.int32)
        rows, labels, indices = abstract((*shapes_of(self.split, lead), indices), self._sharding.batches)
        epoch = abstract(jax.ShapeDtypeStruct((), jnp.int32), self._sharding.replicated)
        return StreamedFeed(rows, labels, indices, epoch, self._shape)

    def close(self) -> None:
        """See `BatchSource.close`."""
        self._reader.close()  # what is being read is not waited for
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
