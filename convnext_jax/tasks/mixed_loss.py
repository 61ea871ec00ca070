"""The loss of mixed images; apart from the other losses, which an evaluation needs without any augmentation."""

import jax

from convnext_jax.augment.mixing import Targets
from convnext_jax.tasks.losses import cross_entropy


def mixed_cross_entropy(logits: jax.Array, targets: Targets, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy against the smoothed labels of mixed images, each by its share.

    Args:
      logits: float32 [B, K].
      targets: two labels and the share of the first for each image.
      smoothing: as of :func:`cross_entropy`.

    Returns:
      float32 [B], in nats.
    """
    # It is linear in the target, so the mixture of the losses is the loss of the mixture.
    own, other = (cross_entropy(logits, labels, smoothing) for labels in (targets.labels, targets.others))
    return targets.share * own + (1.0 - targets.share) * other
