"""Learning rates as functions of the step."""

import optax

from convnext_jax.config import OptimConfig


def warmup_cosine(config: OptimConfig, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Linear warm-up to the peak, then half a cosine down to the minimum.

    With W warm-up steps of S in all: ``peak (s + 1) / W`` for s < W, so that the first step already learns, and
    ``min + (peak - min) (1 + cos(pi (s - W) / (S - W))) / 2`` from s = W on.

    Args:
      config: the peak, the minimum and the length of the warm-up in epochs.
      epochs: length of the run.
      steps_per_epoch: steps of an epoch.

    Returns:
      A function from a step, an integer or an array of them, to the learning rate.
    """
    total = epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    peak, floor = config.learning_rate, config.min_learning_rate
    cosine = optax.cosine_decay_schedule(peak, max(total - warmup, 1), alpha=floor / peak)
    if warmup == 0:
        return cosine
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1)), cosine], [warmup])
