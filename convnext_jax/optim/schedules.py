"""Learning rates as functions of the step."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from convnext_jax.config import OptimConfig

# Share of the peak that one-cycle begins with (Smith and Topin 2017, and PyTorch's default).
ONE_CYCLE_START = 1 / 25


def make_schedule(config: OptimConfig, epochs: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate of an experiment.

    With W warm-up steps of S in all it is ``peak (s + 1) / W`` for s < W, so that the first step already learns, and
    from s = W on

    - ``cosine``: ``floor + (peak - floor) (1 + cos(pi (s - W) / (S - W))) / 2`` (Loshchilov and Hutter 2017, arXiv
      1608.03983);
    - ``step``: ``peak factor^k`` after k of the decay epochs;
    - ``warmup_stable_decay``: the peak up to the last D steps, and in these ``peak + (floor - peak) (s - S + D) / D``
      (Hu et al. 2024, arXiv 2404.06395; Hägele et al. 2024, arXiv 2405.18392).

    ``one_cycle`` has a warm-up of its own: half a cosine from a 25th of the peak up to the peak at W, another one down
    to the floor at S. The momentum stays as it is (Smith and Topin 2017, arXiv 1708.07120, let it fall and rise).

    >>> round(float(make_schedule(OptimConfig(learning_rate=0.1, warmup_epochs=1.0), 10, 4)(1)), 6)
    0.05

    Args:
      config: which of them, the peak ``learning_rate``, the floor ``min_learning_rate``, lengths in epochs. The fields
        have been checked against each other.
      epochs: length of the run.
      steps_per_epoch: steps of an epoch.

    Returns:
      A function from a step, an integer or an array of them, to the learning rate.
    """
    total = epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    peak, floor = config.learning_rate, config.min_learning_rate
    if config.schedule == "one_cycle":
        turn = min(max(warmup, 1), total - 1)
        return optax.piecewise_interpolate_schedule(
            "cosine", peak * ONE_CYCLE_START, {turn: 1 / ONE_CYCLE_START, total: floor / peak}
        )
    after_warmup = _after_warmup(config, warmup, total, steps_per_epoch)
    if warmup == 0:
        return after_warmup
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after_warmup], [warmup])


def steps_before_decay(config: OptimConfig, epochs: int, steps_per_epoch: int) -> int | None:
    """Returns how many steps come before the learning rate falls, of a run that can be made longer from there.

    Returns:
      The steps of ``warmup_stable_decay`` before its decay; None for the other schedules.
    """
    if config.schedule != "warmup_stable_decay":
        return None
    total = epochs * steps_per_epoch
    return total - _decay_steps(config, round(config.warmup_epochs * steps_per_epoch), total)


def reduced(schedule: optax.Schedule, reductions: Sequence[tuple[int, float]]) -> optax.Schedule:
    """Returns a schedule that is multiplied by factors, each from a step on.

    >>> schedule = reduced(lambda step: 0.5, [(10, 0.5), (20, 0.1)])
    >>> [round(float(schedule(step)), 3) for step in (9, 10, 20)]
    [0.5, 0.25, 0.025]
    """
    if not reductions:
        return schedule

    def learning_rate(step: ArrayLike) -> jax.Array:
        factors = (jnp.where(jnp.asarray(step) >= first, factor, 1.0) for first, factor in reductions)
        return math.prod(factors, start=jnp.asarray(schedule(step)))

    return learning_rate


def _decay_steps(config: OptimConfig, warmup: int, total: int) -> int:
    return min(max(round(config.decay_fraction * total), 1), total - warmup)


def _after_warmup(config: OptimConfig, warmup: int, total: int, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate at a step counted from the end of the warm-up."""
    peak, floor, left = config.learning_rate, config.min_learning_rate, total - warmup
    if config.schedule == "step":
        falls = [epoch * steps_per_epoch - warmup for epoch in config.decay_epochs]
        return optax.piecewise_constant_schedule(peak, dict.fromkeys(falls, config.decay_factor))
    if config.schedule == "warmup_stable_decay":
        decay = _decay_steps(config, warmup, total)
        return optax.linear_schedule(peak, floor, decay, transition_begin=left - decay)
    return optax.cosine_decay_schedule(peak, max(left, 1), alpha=floor / peak)
