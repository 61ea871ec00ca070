"""What a task is."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax


class Task(Protocol):
    """What a network is trained for and judged by, as a value.

    Targets and sums are trees of arrays that are the task's own business. Implementations are frozen dataclasses, so
    that a task can be a static argument of `jax.jit`.

    Attributes:
      network: what `convnext_jax.models.registry.create_model` is told of the task: its kind, and its classes.
      metrics: the figures of an evaluation and whether higher is better. The first is the one that checkpoints are
        chosen by unless a configuration says otherwise.
      auxiliary_weight: of the loss of each auxiliary output of a network, in training.
    """

    @property
    def network(self) -> Mapping[str, Any]:
        """See the class."""
        ...

    @property
    def metrics(self) -> Mapping[str, bool]:
        """See the class."""
        ...

    @property
    def auxiliary_weight(self) -> float:
        """See the class."""
        ...

    def targets(self, labels: Any) -> Any:
        """Returns the targets of a batch that was not mixed, from its `convnext_jax.batches.source.Batch.labels`."""
        ...

    def loss(self, outputs: Any, targets: Any) -> jax.Array:
        """Returns the loss to minimize for each example, float32 [B]."""
        ...

    def auxiliary_loss(self, outputs: Any, targets: Any) -> jax.Array:
        """Returns the loss of an auxiliary output for each example, float32 [B]."""
        ...

    def training_metrics(self, outputs: Any, targets: Any) -> dict[str, jax.Array]:
        """Returns figures of a training batch besides the loss, float32 scalars by name."""
        ...

    def sums(self, outputs: Any, labels: Any, mask: jax.Array) -> Any:
        """Returns sums over a batch that add up over batches; examples where ``mask`` is False count nowhere."""
        ...

    def summarize(self, sums: Any) -> dict[str, float]:
        """Returns the figures in `metrics` and the number of ``examples``.

        Args:
          sums: those of all batches, on the host: an array [batches] for each scalar.
        """
        ...


def training_loss(task: Task, outputs: Any, auxiliary: Sequence[Any], targets: Any) -> jax.Array:
    """Returns the loss of each example in training: that of the outputs, and the weighted ones of auxiliary outputs.

    Args:
      task: the loss, and the weight of an auxiliary output.
      outputs: of the network.
      auxiliary: those of its auxiliary heads; see `convnext_jax.models.interface.Model.training_outputs`.
      targets: those of the task for the B images.

    Returns:
      float32 [B].
    """
    loss = task.loss(outputs, targets)
    for each in auxiliary:
        loss = loss + task.auxiliary_weight * task.auxiliary_loss(each, targets)
    return loss
