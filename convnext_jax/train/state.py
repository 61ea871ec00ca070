"""What a training step takes and returns."""

import dataclasses
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
    """

    step: jax.Array
    params: Any
    opt_state: Any
    statistics: Any = dataclasses.field(default_factory=dict)


def init_state(params: Any, optimizer: optax.GradientTransformation, statistics: Any = None) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), statistics or {})
