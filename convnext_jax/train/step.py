"""One training step, and many of them in one call to the device."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convnext_jax.batches.preprocess import resize
from convnext_jax.batches.source import Batch, BatchSource
from convnext_jax.keys import Stream, stream_key
from convnext_jax.ops.cpu import update_in_place_on_cpu
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.interface import Task
from convnext_jax.train.gradients import BatchResult, accumulated_gradient, gradient_norm, sharpness_aware
from convnext_jax.train.state import TrainState, update_ema

MOST_STEPS = 512  # of a call to the device
# From (seed, step, batch) to the network's input, float32 [B,H,W,C], and the task's targets.
Augment = Callable[[jax.Array, jax.Array, Batch], tuple[jax.Array, Any]]
# By name, float32 scalars of a step, or arrays over steps: ``loss``, those of the task, ``grad_norm`` (the global norm
# before any clipping) and ``lr``.
Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """Everything that is fixed when the step is compiled.

    Attributes:
      definition: the model without its parameters, as ``split_model`` returns it.
      task: the loss and the metrics.
      optimizer: turns gradients into updates.
      schedule: the learning rate at a step, for the record.
      augment: from the pixels of a batch to the network's input and targets.
      source: makes the batch of a step from what it handed to the call.
      sharding: how arrays lie on the devices.
      accumulation: parts that a batch is cut into.
      sam_rho: distance of sharpness-aware minimization; 0 turns it off.
      ema_decay: of the moving average; 0 keeps none.
      image_size: side in pixels that the augmented images are scaled to; None keeps their own.
    """

    definition: Any
    task: Task
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augment: Augment
    source: BatchSource
    sharding: Sharding
    accumulation: int = 1
    sam_rho: float = 0.0
    ema_decay: float = 0.0
    image_size: int | None = None


def prepare_inputs(spec: StepSpec, step: jax.Array, batch: Batch, seed: jax.Array) -> tuple[jax.Array, Any]:
    """Returns what the network is given for a batch, float32 [B,H,W,C], and the task's targets."""
    inputs, targets = spec.augment(seed, step, batch)
    return resize(inputs, spec.image_size), targets


def step_gradient(
    spec: StepSpec, state: TrainState, inputs: jax.Array, targets: Any, key: jax.Array
) -> tuple[Any, BatchResult]:
    """Returns the gradient that a step updates the parameters by, and the result of the batch.

    Args:
      spec: what is fixed.
      state: the state before the step.
      inputs: what the network is given, float32 [B,H,W,C].
      targets: the task's.
      key: of what is random in the network.
    """

    def compute(params: Any) -> tuple[Any, BatchResult]:
        params, batch_stats = spec.sharding.gathered((params, state.batch_stats))
        grads, result = accumulated_gradient(
            spec.definition, spec.task, spec.accumulation, params, batch_stats, inputs, targets, key
        )
        return spec.sharding.scattered(grads), result

    return sharpness_aware(compute, spec.sam_rho, state.params)


def train_step(spec: StepSpec, state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, Metrics]:
    """Augments a batch, takes its gradient and updates the parameters.

    Args:
      spec: what is fixed.
      state: the state before the step.
      batch: the examples.
      seed: uint32 scalar. With ``state.step`` it determines everything random in the step.

    Returns:
      The state after the step, and its metrics.
    """
    inputs, targets = prepare_inputs(spec, state.step, batch, seed)
    grads, result = step_gradient(spec, state, inputs, targets, stream_key(seed, Stream.MODEL, state.step))
    grad_norm = gradient_norm(grads)
    grads = update_in_place_on_cpu(grads, grad_norm)
    updates, opt_state = spec.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema, state.ema_batch_stats
    if spec.ema_decay:
        ema = update_ema(ema, (params, result.batch_stats), spec.ema_decay, state.step)
    metrics = result.metrics | {"grad_norm": grad_norm, "lr": jnp.asarray(spec.schedule(state.step), jnp.float32)}
    return TrainState(state.step + 1, params, opt_state, result.batch_stats, *ema), metrics


def train_steps(
    spec: StepSpec, state: TrainState, feed: Any, num_steps: jax.Array, seed: jax.Array
) -> tuple[TrainState, Metrics]:
    """Takes many steps, with what a source hands to them.

    The number of steps is a value, not part of the program. So a call may have any number of them, and a step computes
    the same to the last bit whatever the call that it is in.

    Args:
      spec: what is fixed.
      state: the state before the first of the steps.
      feed: what the source hands to the call.
      num_steps: int32 scalar, at most `MOST_STEPS`.
      seed: uint32 scalar.

    Returns:
      The state after the last step, and the metrics of each, arrays [MOST_STEPS], 0 beyond the number of steps.
    """

    @jax.jit  # so that it is traced once, for its shapes and for the loop
    def step(state: TrainState, feed: Any, index: jax.Array) -> tuple[TrainState, Metrics]:
        return train_step(spec, state, spec.source.batch(feed, index), seed)

    def body(index: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = step(carry[0], feed, index)
        return state, jax.tree.map(lambda all_steps, one: all_steps.at[index].set(one), carry[1], metrics)

    _, shapes = jax.eval_shape(step, state, feed, jnp.int32(0))
    metrics = jax.tree.map(lambda leaf: jnp.zeros((MOST_STEPS, *leaf.shape), leaf.dtype), shapes)
    return jax.lax.fori_loop(jnp.int32(0), num_steps, body, (state, metrics))


def lower_train_steps(spec: StepSpec, state: TrainState) -> jax.stages.Lowered:
    """Traces :func:`train_steps`, for ``(state, feed, num_steps, seed)``. The state that a call is given is donated.

    Of the state the shapes and shardings are all it needs (`convnext_jax.sharding.abstract`). A program that was
    compiled ahead of time cannot be compiled a second time unnoticed: arguments of another shape or sharding are an
    error.
    """

    def run(state: TrainState, feed: Any, num_steps: jax.Array, seed: jax.Array) -> tuple[TrainState, Metrics]:
        return train_steps(spec, state, feed, num_steps, seed)

    whole = spec.sharding.replicated
    num_steps = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=whole)
    jitted = jax.jit(run, donate_argnums=0, out_shardings=(spec.sharding.state(state), whole))
    with jax.set_mesh(spec.sharding.mesh):  # what depends on the number of devices asks for it
        return jitted.lower(state, spec.source.abstract_feed(), num_steps, seed)
