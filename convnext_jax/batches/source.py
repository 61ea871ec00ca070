"""What a batch is, and what hands batches to the training step."""

import dataclasses
import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from convnext_jax.data.dataset import Split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MaskedLabels:
    """What images with masks show.

    Attributes:
      labels: the class of each image, int32 [B].
      masks: the class of each pixel, uint8 [B,H,W]; 255 counts nowhere.
    """

    labels: jax.Array
    masks: jax.Array


def labels_of(split: Split) -> Any:
    """Returns what a task learns from, on the host: the labels [N], or `MaskedLabels` if the split has masks."""
    if split.masks is None:
        return split.labels
    return MaskedLabels(split.labels, split.masks)  # pyright: ignore[reportArgumentType]


def shapes_of(split: Split, lead: tuple[int, ...]) -> tuple[jax.ShapeDtypeStruct, Any]:
    """Returns the shapes of examples on the devices: flat rows of bytes [...,H W C], and what a task learns from.

    Args:
      split: that the examples are of.
      lead: the axes before those of an example.
    """
    rows = jax.ShapeDtypeStruct((*lead, math.prod(split.images.shape[1:])), jnp.uint8)
    labels = jax.tree.map(lambda array: jax.ShapeDtypeStruct((*lead, *array.shape[1:]), array.dtype), labels_of(split))
    return rows, labels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The examples of a step.

    Attributes:
      images: uint8 [B,H,W,C], C from 1 to 4.
      labels: what the task learns from: int32 [B], in [0, classes), or `MaskedLabels` if there are masks.
      indices: which examples of the split they are, int32 [B].
      epoch: the epoch that the step is in, int32 scalar, from 0.
    """

    images: jax.Array
    labels: Any
    indices: jax.Array
    epoch: jax.Array


class BatchSource(Protocol):
    """Where the batches of a training come from. A call to the device loops over what a source hands
    to it, and knows nothing else.

    The batch of a step is a function of the seed and the step alone.

    Attributes:
      num_examples: examples of the split.
      steps_per_epoch: steps of an epoch.
    """

    @property
    def num_examples(self) -> int:
        """See the class."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """See the class."""
        ...

    def feed(self, first_step: int, num_steps: int) -> Any:
        """Returns what the steps of one call to the device read: a tree of arrays, on the devices.

        Args:
          first_step: counted from the start of the run.
          num_steps: how many steps; all of them are in one epoch.
        """
        ...

    def batch(self, feed: Any, index: jax.Array) -> Batch:
        """Returns the batch of a step, inside of the compiled program.

        Args:
          feed: what `feed` returned for the call.
          index: the number of the step in the call, int32 scalar, from 0.
        """
        ...

    def abstract_feed(self) -> Any:
        """Returns the shapes, dtypes and shardings of what `feed` returns, the same for every call."""
        ...

    def close(self) -> None:
        """Ends what reads for the source. It hands out no batches after that."""
        ...
