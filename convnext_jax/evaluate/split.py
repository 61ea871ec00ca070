"""Figures over a whole split, in which each example counts exactly once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.batches.preprocess import Normalization, normalize, resize
from convnext_jax.batches.resident import ResidentSplit
from convnext_jax.models.parameters import merge_model
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.interface import Task


def evaluate_split(
    definition: Any,
    params: Any,
    batch_stats: Any,
    split: ResidentSplit,
    *,
    task: Task,
    normalization: Normalization,
    batch_size: int,
    sharding: Sharding,
    image_size: int | None = None,
) -> dict[str, float]:
    """Evaluates parameters on a split, in one call to the devices.

    Args:
      definition: the model without its parameters.
      params: its parameters.
      batch_stats: its running statistics, empty if it has none.
      split: N examples on the devices.
      task: what the figures are.
      normalization: of the channels.
      batch_size: examples at a time, rounded up to a multiple of the devices. Affects speed and memory alone.
      sharding: how arrays lie on the devices.
      image_size: side in pixels that the images are scaled to; None keeps their own.

    Returns:
      The figures of the task, and ``examples``, which is N.
    """
    batch_size = -(-min(batch_size, split.num_examples) // sharding.num_devices) * sharding.num_devices
    with jax.set_mesh(sharding.mesh):
        sums = _sum_batches(
            definition, task, normalization, batch_size, sharding, image_size, params, batch_stats or {}, split
        )
    return task.summarize(jax.device_get(sums))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _sum_batches(
    definition: Any,
    task: Task,
    normalization: Normalization,
    batch_size: int,
    sharding: Sharding,
    image_size: int | None,
    params: Any,
    batch_stats: Any,
    split: ResidentSplit,
) -> Any:
    """Returns the sums of each batch, arrays [batches]. Adding them up is left to the host and its float64."""
    params, batch_stats = sharding.gathered((params, batch_stats))

    def sum_batch(start: jax.Array) -> Any:
        indices = start + jnp.arange(batch_size, dtype=jnp.int32)
        indices = jax.lax.with_sharding_constraint(indices, sharding.batch)
        # The last batch is filled up with the last example, which the mask then leaves out.
        images, labels = split.take(jnp.minimum(indices, split.num_examples - 1))
        inputs = resize(normalize(images, normalization), image_size)
        outputs = merge_model(definition, params, batch_stats)(inputs)
        return task.sums(outputs, labels, indices < split.num_examples)

    sums = jax.lax.map(sum_batch, jnp.arange(0, split.num_examples, batch_size, dtype=jnp.int32))
    return jax.lax.with_sharding_constraint(sums, sharding.replicated)
