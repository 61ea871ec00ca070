"""Figures over a whole split, in which each example counts exactly once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.batches.evaluation import EvaluationBatches
from convnext_jax.batches.preprocess import Normalization, normalize, resize
from convnext_jax.models.parameters import merge_model
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.interface import Task


def evaluate_split(
    definition: Any,
    params: Any,
    batch_stats: Any,
    split: EvaluationBatches,
    *,
    task: Task,
    normalization: Normalization,
    sharding: Sharding,
    image_size: int | None = None,
) -> dict[str, float]:
    """Evaluates parameters on a split, in one call to the devices.

    Args:
      definition: the model without its parameters.
      params: its parameters.
      batch_stats: its running statistics, empty if it has none.
      split: N examples on the devices. The size of its batches affects speed and memory alone.
      task: what the figures are.
      normalization: of the channels.
      sharding: how arrays lie on the devices.
      image_size: side in pixels that the images are scaled to; None keeps their own.

    Returns:
      The figures of the task, and ``examples``, which is N.
    """
    with jax.set_mesh(sharding.mesh):
        sums = _sum_batches(definition, task, normalization, sharding, image_size, params, batch_stats or {}, split)
    return task.summarize(jax.device_get(sums))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _sum_batches(
    definition: Any,
    task: Task,
    normalization: Normalization,
    sharding: Sharding,
    image_size: int | None,
    params: Any,
    batch_stats: Any,
    split: EvaluationBatches,
) -> Any:
    """Returns the sums of each batch, arrays [K]. Adding them up is left to the host and its float64."""
    params, batch_stats = sharding.gathered((params, batch_stats))
    count, batch_size = len(split.rows), split.batch_size

    def sum_batch(batch: tuple[jax.Array, Any, jax.Array]) -> Any:
        rows, labels, start = batch
        rows, labels = jax.lax.with_sharding_constraint((rows, labels), sharding.batch)
        inputs = resize(normalize(rows.reshape(-1, *split.image_shape), normalization), image_size)
        outputs = merge_model(definition, params, batch_stats)(inputs)
        return task.sums(outputs, labels, start + jnp.arange(batch_size) < split.num_examples)

    starts = batch_size * jnp.arange(count, dtype=jnp.int32)
    sums = jax.lax.map(sum_batch, (split.rows, split.labels, starts))
    return jax.lax.with_sharding_constraint(sums, sharding.replicated)
