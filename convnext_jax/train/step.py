"""One training step, and many of them in one call to the device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from convnext_jax.augment.pipeline import augment
from convnext_jax.config import AugmentConfig, OptimConfig
from convnext_jax.batches.resident import Batch, ResidentSplit, batch_indices, scale
from convnext_jax.sharding import batch_sharded, replicated
from convnext_jax.keys import Stream, stream_key
from convnext_jax.train.gradients import Outcome, accumulated_gradient, gradient_norm, sharpness_aware
from convnext_jax.train.state import TrainState, update_ema


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiled step is made for; everything here is fixed at compile time.

    Attributes:
      definition: the model without its parameters, as ``split_model`` gives it.
      optimizer: turns gradients into updates.
      schedule: the learning rate at a step, for the record.
      augment: the augmentation of the training images.
      optim: label smoothing, accumulation, sharpness-aware minimisation and the moving average.
      batch_size: images a step, B, over all devices.
      mean: channel means of the training split, on the scale [0, 1].
      std: channel deviations of the training split.
      mesh: the devices, over which the leading axis of a batch is split.
      image_size: side in pixels that the augmented images are scaled to; their own where None.
    """

    definition: Any
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augment: AugmentConfig
    optim: OptimConfig
    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mesh: Mesh
    image_size: int | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """What a step reports: float32 scalars, or arrays [steps].

    Attributes:
      loss: mean of the smoothed loss over the augmented batch.
      top1: share of the augmented batch that was classified rightly, in [0, 1], by the larger share of mixed images.
      grad_norm: global norm of the gradient before any clipping.
      lr: learning rate of the step.
    """

    loss: jax.Array
    top1: jax.Array
    grad_norm: jax.Array
    lr: jax.Array


def train_step(program: Program, state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, StepMetrics]:
    """Augments a batch, takes its gradient and updates the parameters.

    Args:
      program: the compile-time part.
      state: the state before the step.
      batch: the examples.
      seed: uint32 scalar; with ``state.step`` it determines everything random in the step.

    Returns:
      The state after the step and its metrics.
    """
    inputs, targets = augment(program.augment, seed, state.step, batch, program.mean, program.std)
    inputs = scale(inputs, program.image_size)
    model_key = stream_key(seed, Stream.MODEL, state.step)

    def compute(params: Any) -> tuple[Any, Outcome]:
        return accumulated_gradient(
            program.definition,
            program.optim.label_smoothing,
            program.optim.accumulation,
            params,
            state.statistics,
            inputs,
            targets,
            model_key,
        )

    grads, outcome = sharpness_aware(compute, program.optim.sam_rho, state.params)
    grad_norm = gradient_norm(grads)
    # A factor of one. XLA copies every parameter in each turn of the scan unless the update is bound to come after the
    # last use of the old ones; each part of it now depends on the whole gradient (0 * norm is not folded: inf, nan).
    one = 1 + 0 * grad_norm
    grads = jax.tree.map(lambda grad: grad * one, grads)
    updates, opt_state = program.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = update_ema(state.ema, params, program.optim.ema_decay, state.step)
    metrics = StepMetrics(
        loss=outcome.loss,
        top1=outcome.top1,
        grad_norm=grad_norm,
        lr=jnp.asarray(program.schedule(state.step), jnp.float32),
    )
    return TrainState(state.step + 1, params, opt_state, outcome.statistics, ema), metrics


def train_steps(
    program: Program, state: TrainState, data: ResidentSplit, order: jax.Array, seed: jax.Array, num_steps: int
) -> tuple[TrainState, StepMetrics]:
    """Takes many steps on a resident data set.

    Args:
      program: the compile-time part.
      state: the state before the first of the steps, which must be a multiple of ``num_steps``.
      data: the training split, of N examples.
      order: int32 [N], that of the epoch in which the steps lie, as `convnext_jax.batches.resident.epoch_order` draws it.
      seed: uint32 scalar.
      num_steps: how many, a divisor of the steps of an epoch, so that all of them lie in one epoch.

    Returns:
      The state after the last step and the metrics of each, arrays [num_steps].
    """
    steps_per_epoch = data.num_examples // program.batch_size
    if steps_per_epoch % num_steps:
        raise ValueError(f"{num_steps} steps a call do not divide the {steps_per_epoch} steps of an epoch")
    epoch = state.step // steps_per_epoch

    def body(state: TrainState, _: None) -> tuple[TrainState, StepMetrics]:
        indices = batch_indices(order, state.step, program.batch_size)
        indices = jax.lax.with_sharding_constraint(indices, batch_sharded(program.mesh))
        return train_step(program, state, Batch(*data.take(indices), indices, epoch), seed)

    return jax.lax.scan(body, state, length=num_steps)


def lower_train_steps(program: Program, state: TrainState, data: ResidentSplit, num_steps: int) -> jax.stages.Lowered:
    """Traces :func:`train_steps`, once, for ``(state, data, order, seed)``; the state that it is given is donated.

    Of the state and the data the shapes and shardings are all it needs (`convnext_jax.sharding.abstract`). An
    ahead-of-time compilation cannot happen a second time behind anyone's back: arguments of another shape or sharding
    are an error.
    """

    def run(
        state: TrainState, data: ResidentSplit, order: jax.Array, seed: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        return train_steps(program, state, data, order, seed, num_steps)

    whole = replicated(program.mesh)
    order = jax.ShapeDtypeStruct((data.num_examples,), jnp.int32, sharding=whole)
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=whole)
    return jax.jit(run, donate_argnums=0, out_shardings=whole).lower(state, data, order, seed)
