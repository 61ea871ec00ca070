"""What a batch is, and what hands batches to the training step."""

import dataclasses
from typing import Any, Protocol

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The examples of a step.

    Attributes:
      images: uint8 [B,H,W,C], C from 1 to 4.
      labels: what the task learns from: of a classification int32 [B], in [0, classes).
      indices: which examples of the split they are, int32 [B].
      epoch: the epoch that the step is in, int32 scalar, from 0.
    """

    images: jax.Array
    labels: jax.Array
    indices: jax.Array
    epoch: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Feed:
    """What a source hands to one call to the device.

    Attributes:
      shared: what all steps of the call read, a tree of arrays.
      per_step: what each step reads of its own, a tree of arrays [steps,...].
    """

    shared: Any
    per_step: Any


class BatchSource(Protocol):
    """Where the batches of a training come from. The step scans over what a source hands it, and knows nothing else.

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

    def feed(self, first_step: int, num_steps: int, capacity: int) -> Feed:
        """Returns what the steps from ``first_step`` on read, on the devices.

        Args:
          first_step: counted from the start of the run.
          num_steps: how many steps; all of them are in one epoch.
          capacity: length of the arrays in ``per_step``, at least ``num_steps``. What is beyond is not read.
        """
        ...

    def batch(self, shared: Any, this_step: Any) -> Batch:
        """Returns the batch of a step, inside of the compiled step.

        Args:
          shared: that of the feed.
          this_step: the step's part of ``per_step``.
        """
        ...

    def abstract_feed(self, capacity: int) -> Feed:
        """Returns the shapes, dtypes and shardings of what `feed` returns."""
        ...
