"""Metrics over a whole split, in which each example counts exactly once."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from convnext_jax.batches.resident import ResidentSplit, normalize, scale
from convnext_jax.sharding import batch_sharded
from convnext_jax.models import merge_model
from convnext_jax.tasks.classification import ClassificationSums, classification_sums


def evaluate_split(
    definition: Any,
    params: Any,
    split: ResidentSplit,
    *,
    statistics: Any = None,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    mesh: Mesh,
    image_size: int | None = None,
) -> dict[str, float]:
    """Evaluates parameters on a split, in one call to the devices.

    Args:
      definition: the model without its parameters.
      params: its parameters.
      split: N examples on the devices.
      statistics: the model's running statistics, where it has any.
      mean: channel means of the training split, on the scale [0, 1].
      std: channel deviations of the training split.
      batch_size: examples at a time, rounded up to a multiple of the devices; affects speed and memory alone.
      mesh: the devices, over which the leading axis of a batch is split.
      image_size: side in pixels that the images are scaled to; their own if None.

    Returns:
      ``loss``, ``top1``, ``top5`` and ``examples``, which is N.
    """
    batch_size = -(-min(batch_size, split.num_examples) // mesh.size) * mesh.size
    sums = _batch_sums(
        definition, params, statistics or {}, split, tuple(mean), tuple(std), batch_size, mesh, image_size
    )
    return jax.device_get(sums).total()


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6, 7, 8))
def _batch_sums(
    definition: Any,
    params: Any,
    statistics: Any,
    split: ResidentSplit,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    mesh: Mesh,
    image_size: int | None,
) -> ClassificationSums:
    """The sums of each batch, arrays [batches]; adding them up is left to the host and its float64."""

    def evaluate_batch(start: jax.Array) -> ClassificationSums:
        indices = start + jnp.arange(batch_size, dtype=jnp.int32)
        indices = jax.lax.with_sharding_constraint(indices, batch_sharded(mesh))
        # The last batch is filled up with the last example, which the mask then leaves out.
        images, labels = split.take(jnp.minimum(indices, split.num_examples - 1))
        inputs = scale(normalize(images, mean, std), image_size)
        logits = merge_model(definition, params, statistics)(inputs)  # [B, K] float32
        return classification_sums(logits, labels, indices < split.num_examples)

    return jax.lax.map(evaluate_batch, jnp.arange(0, split.num_examples, batch_size, dtype=jnp.int32))
