"""What a training step takes and returns."""

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
      opt_state: the optimiser's state for them.
      statistics: the running statistics of BatchNorm, nested dictionaries, empty without BatchNorm.
      ema: the exponential moving average of the parameters, empty where none is kept.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    statistics: Any = dataclasses.field(default_factory=dict)
    ema: Any = dataclasses.field(default_factory=dict)


def init_state(
    params: Any, optimizer: optax.GradientTransformation, statistics: Any = None, *, keep_ema: bool = False
) -> TrainState:
    """The state before the first step."""

    opt_state, ema = _init_others(params, optimizer, keep_ema)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, statistics or {}, ema)


# One program, where each operation by itself would be compiled for each shape.
@functools.partial(jax.jit, static_argnums=(1, 2))
def _init_others(params: Any, optimizer: optax.GradientTransformation, keep_ema: bool) -> tuple[Any, Any]:
    # A copy, since the state is donated and no array can be donated twice.
    return optimizer.init(params), jax.tree.map(jnp.copy, params) if keep_ema else {}


def update_ema(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """The moving average after a step, ``d ema + (1 - d) params`` with ``d = min(decay, (1 + s) / (10 + s))``.

    The warm-up in d lets the average forget the parameters that training started from.

    Args:
      ema: the average before; an empty one stays so.
      params: the parameters after the step.
      decay: in [0, 1).
      step: s, how many steps were done before this one.
    """
    done = step.astype(jnp.float32)
    decay_now = jnp.minimum(jnp.float32(decay), (1 + done) / (10 + done))
    return jax.tree.map(lambda mean, param: param + decay_now * (mean - param), ema, params if ema else {})
