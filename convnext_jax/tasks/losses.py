"""Losses, one value an example."""

import jax
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy against smoothed labels, ``-sum_k t_k log softmax(z)_k`` with ``t = (1 - a) onehot + a / K``.

    Args:
      logits: float32 [B, K].
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
