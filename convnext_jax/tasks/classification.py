"""Classification: one label an image, cross-entropy, top-1 and top-5."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixedLabels:
    """What a batch of images shows: a share of one class, the rest of another.

    Attributes:
      labels_a: the class of each image, int32 [B].
      labels_b: the class that is mixed in, int32 [B].
      weight_a: share of ``labels_a``, float32 [B] in [0, 1].
    """

    labels_a: jax.Array
    labels_b: jax.Array
    weight_a: jax.Array

    def larger(self) -> jax.Array:
        """Returns the class that has the larger share of each image, int32 [B]."""
        return jnp.where(self.weight_a >= 0.5, self.labels_a, self.labels_b)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassificationSums:
    """Sums over examples, which add up exactly over batches, devices and processes.

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


@dataclasses.dataclass(frozen=True)
class Classification:
    """The task of classifying images; see `convnext_jax.tasks.interface.Task`.

    Attributes:
      num_classes: K.
      label_smoothing: share of the target spread evenly over all classes in training, in [0, 1).
      auxiliary_weight: of the loss of each auxiliary head in training. 0.3 is that of Szegedy et al., `Going Deeper
        with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2015.
    """

    num_classes: int
    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.3

    @property
    def network(self) -> Mapping[str, Any]:
        """See `Task`; one logit for each class."""
        return {"num_classes": self.num_classes}

    @property
    def metrics(self) -> Mapping[str, bool]:
        """Top-1 and top-5, which are better higher, and the loss."""
        return {"top1": True, "top5": True, "loss": False}

    def targets(self, labels: jax.Array) -> MixedLabels:
        """Returns the targets of images that are not mixed, from their classes, int32 [B]."""
        return MixedLabels(labels, labels, jnp.ones(labels.shape, jnp.float32))

    def loss(self, outputs: jax.Array, targets: MixedLabels) -> jax.Array:
        """Returns the cross-entropy against the smoothed labels of mixed images, float32 [B], in nats."""
        # It is linear in the target, so the mixture of the losses is the loss of the mixture.
        loss_a, loss_b = (
            cross_entropy(outputs, labels, self.label_smoothing) for labels in (targets.labels_a, targets.labels_b)
        )
        return targets.weight_a * loss_a + (1.0 - targets.weight_a) * loss_b

    def auxiliary_loss(self, outputs: jax.Array, targets: MixedLabels) -> jax.Array:
        """See `Task`; that of any logits."""
        return self.loss(outputs, targets)

    def training_metrics(self, outputs: jax.Array, targets: MixedLabels) -> dict[str, jax.Array]:
        """Returns ``top1``; the class of a mixed image is the one that has the larger share of it."""
        return {"top1": (label_rank(outputs, targets.larger()) == 0).mean(dtype=jnp.float32)}

    def sums(self, outputs: jax.Array, labels: jax.Array, mask: jax.Array) -> ClassificationSums:
        """Returns the sums of a batch.

        Args:
          outputs: logits, float32 [B,K].
          labels: int32 [B], in [0, K).
          mask: bool [B], False for padding.
        """
        rank = label_rank(outputs, labels)
        return ClassificationSums(
            loss=jnp.where(mask, cross_entropy(outputs, labels), 0.0).sum(),
            top1=(mask & (rank < 1)).sum(),
            top5=(mask & (rank < 5)).sum(),
            count=mask.sum(),
        )

    def summarize(self, sums: ClassificationSums) -> dict[str, float]:
        """Returns ``loss`` in nats, ``top1`` and ``top5`` as fractions in [0, 1], and ``examples``."""
        count = int(np.sum(np.asarray(sums.count, np.int64)))
        # Float64, so that the order and the size of the batches leave no trace.
        return {
            "loss": float(np.sum(np.asarray(sums.loss, np.float64))) / count,
            "top1": int(np.sum(np.asarray(sums.top1, np.int64))) / count,
            "top5": int(np.sum(np.asarray(sums.top5, np.int64))) / count,
            "examples": count,
        }


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the cross-entropy ``-sum_k t_k log softmax(z)_k`` against smoothed labels ``t = (1 - a) onehot + a / K``.

    >>> round(cross_entropy(jnp.zeros((1, 4)), jnp.array([2])).item(), 4)
    1.3863

    Args:
      logits: float32 [B,K].
      labels: int32 [B], in [0, K).
      smoothing: a, in [0, 1).

    Returns:
      float32 [B], in nats.
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing == 0.0:
        return loss
    # The mean over all classes is the cross-entropy against the uniform distribution.
    uniform = jax.nn.logsumexp(logits, axis=-1) - logits.mean(axis=-1)
    return (1.0 - smoothing) * loss + smoothing * uniform


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the rank of the right class among the logits, 0 if its logit is the highest.

    Of equal logits the one of the lower class comes first, as in ``argmax``. A row with a NaN ranks last, so that a
    broken network is never right.

    >>> label_rank(jnp.array([[0.1, 0.7, 0.2]]), jnp.array([2])).tolist()
    [1]

    Args:
      logits: float32 [B,K].
      labels: int32 [B], in [0, K).

    Returns:
      int32 [B], in [0, K].
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    not_above = (logits < own) | ((logits == own) & (classes >= labels[:, None]))
    return jnp.where(jnp.isnan(logits).any(-1), logits.shape[-1], (~not_above).sum(-1)).astype(jnp.int32)
