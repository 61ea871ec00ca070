"""The examples that a run is evaluated on, on the devices in the batches that they are evaluated in."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from convnext_jax.batches.source import labels_of, shapes_of
from convnext_jax.data.dataset import Split
from convnext_jax.sharding import Sharding, abstract


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("rows", "labels"), meta_fields=("num_examples", "image_shape")
)
@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """A split in K batches of B examples. Each device has its own part of every batch, and no other.

    Attributes:
      rows: the images as flat rows of bytes, as in `convnext_jax.batches.resident.ResidentSplit`, uint8 [K,B,H W C].
      labels: what the task is evaluated on, a tree of arrays [K,B,...]; see `convnext_jax.batches.source.labels_of`.
      num_examples: N. The last batch is filled up with the last example.
      image_shape: (H, W, C).
    """

    rows: jax.Array
    labels: Any
    num_examples: int
    image_shape: tuple[int, int, int]

    @property
    def batch_size(self) -> int:
        """B."""
        return self.rows.shape[1]


def put_batches(split: Split, batch_size: int, sharding: Sharding) -> EvaluationBatches:
    """Copies a split from the host to the devices. A process reads the examples of its own devices alone.

    Args:
      split: N examples.
      batch_size: the most examples at a time. Fewer are taken if that makes the batches equal, and more if the devices
        do not divide them.
      sharding: how arrays lie on the devices.
    """
    shapes = abstract_batches(split, batch_size, sharding)

    def copied(array: Any, shape: jax.ShapeDtypeStruct) -> jax.Array:
        positions = np.arange(math.prod(shape.shape[:2])).reshape(shape.shape[:2])
        positions = np.minimum(positions, len(split) - 1)

        def part(index: Any) -> np.ndarray:
            own = positions[index[:2]]
            return np.asarray(array[own.reshape(-1)]).reshape(*own.shape, *shape.shape[2:])

        # One device after another, so that the host never holds the split a second time.
        places = sharding.batches.addressable_devices_indices_map(shape.shape)
        parts = [jax.device_put(part(index), device) for device, index in places.items()]
        return jax.make_array_from_single_device_arrays(shape.shape, sharding.batches, parts)

    rows, labels = jax.tree.map(copied, (split.images, labels_of(split)), (shapes.rows, shapes.labels))
    return EvaluationBatches(rows, labels, shapes.num_examples, shapes.image_shape)


def abstract_batches(split: Split, batch_size: int, sharding: Sharding) -> EvaluationBatches:
    """Returns the shapes, dtypes and shardings of what `put_batches` returns."""
    count, height, width, channels = split.images.shape
    batches = -(-count // min(batch_size, count))
    batch_size = sharding.rounded_up(-(-count // batches))
    lead = (-(-count // batch_size), batch_size)
    rows, labels = abstract(shapes_of(split, lead), sharding.batches)
    return EvaluationBatches(rows, labels, count, (height, width, channels))
