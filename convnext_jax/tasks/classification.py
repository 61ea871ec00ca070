"""Metrics as sums and counts, which add up exactly over batches, devices and processes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.tasks.losses import cross_entropy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassificationSums:
    """Sums over examples; fields are scalars, or arrays [batches] before :meth:`total`.

    Attributes:
      loss: sum of the cross-entropy without label smoothing, in nats.
      top1: how many examples have the right class first.
      top5: how many have it among the first five.
      count: how many examples there are.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array

    def total(self) -> dict[str, float]:
        """Means over all examples: ``loss``, ``top1`` and ``top5`` (fractions in [0, 1]), and ``examples``."""
        count = int(np.sum(np.asarray(self.count, np.int64)))
        # Float64, so that the order and size of the batches leave no trace.
        return {
            "loss": float(np.sum(np.asarray(self.loss, np.float64))) / count,
            "top1": int(np.sum(np.asarray(self.top1, np.int64))) / count,
            "top5": int(np.sum(np.asarray(self.top5, np.int64))) / count,
            "examples": count,
        }


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The place of the right class among the logits, 0 where it is the highest.

    Of equal logits the one of the lower class comes first, as ``argmax`` has it; a row with a NaN ranks last, so that
    a broken network is never right.

    Args:
      logits: float32 [B, K].
      labels: int32 [B], in [0, K).

    Returns:
      int32 [B], in [0, K].
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    behind = (logits < own) | ((logits == own) & (classes >= labels[:, None]))
    return jnp.where(jnp.isnan(logits).any(-1), logits.shape[-1], (~behind).sum(-1)).astype(jnp.int32)


def classification_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> ClassificationSums:
    """The sums of a batch.

    Args:
      logits: float32 [B, K].
      labels: int32 [B], in [0, K).
      mask: bool [B], False for padding, which counts nowhere.
    """
    rank = label_rank(logits, labels)
    return ClassificationSums(
        loss=jnp.where(mask, cross_entropy(logits, labels), 0.0).sum(),
        top1=(mask & (rank < 1)).sum(),
        top5=(mask & (rank < 5)).sum(),
        count=mask.sum(),
    )
