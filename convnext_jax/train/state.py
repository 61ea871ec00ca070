"""The state of a run, and its moving average."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run between two steps.

    Attributes:
      step: int32 scalar, how many steps are done.
      params: the parameters, nested dictionaries of float32 arrays.
      opt_state: the optimizer's state for them.
      batch_stats: the running statistics, nested dictionaries, empty if there are none.
      ema: the exponential moving average of the parameters, empty if none is kept.
      ema_batch_stats: that of the running statistics.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    batch_stats: Any = dataclasses.field(default_factory=dict)
    ema: Any = dataclasses.field(default_factory=dict)
    ema_batch_stats: Any = dataclasses.field(default_factory=dict)


def init_state(
    params: Any, optimizer: optax.GradientTransformation, batch_stats: Any = None, *, keep_ema: bool = False
) -> TrainState:
    """Returns the state before the first step."""
    batch_stats = batch_stats or {}
    opt_state, ema, ema_batch_stats = _init_others(params, batch_stats, optimizer, keep_ema)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, batch_stats, ema, ema_batch_stats)


# One program. Operation by operation, each would be compiled for each shape.
@functools.partial(jax.jit, static_argnums=(2, 3))
def _init_others(
    params: Any, batch_stats: Any, optimizer: optax.GradientTransformation, keep_ema: bool
) -> tuple[Any, Any, Any]:
    # Copies, since the state is donated and no array can be donated twice.
    ema, ema_batch_stats = jax.tree.map(jnp.copy, (params, batch_stats)) if keep_ema else ({}, {})
    return optimizer.init(params), ema, ema_batch_stats


def update_ema(average: Any, values: Any, decay: float, step: jax.Array) -> Any:
    """Returns the moving average after a step, ``d average + (1 - d) values``, ``d = min(decay, (1 + s) / (10 + s))``.

    The warm-up in d lets the average forget the values that training started from.

    >>> update_ema({"w": jnp.float32(1)}, {"w": jnp.float32(2)}, 0.99, jnp.int32(0))["w"].item()
    1.899999976158142

    Args:
      average: the average before the step.
      values: what is averaged, after the step.
      decay: in [0, 1).
      step: s, how many steps were done before this one.
    """
    done = step.astype(jnp.float32)
    decay_now = jnp.minimum(jnp.float32(decay), (1 + done) / (10 + done))
    return jax.tree.map(lambda mean, value: value + decay_now * (mean - value), average, values)
