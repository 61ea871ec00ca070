"""Many blocks of one shape as one loop, which is compiled once for all of them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.rematerialization import call_rematerialized
from convnext_jax.layers.stochastic import BranchScales


def call_in_loop(
    blocks: Sequence[nnx.Module], x: jax.Array, scales: Sequence[BranchScales], *, training: bool, remat: bool
) -> jax.Array:
    """Calls blocks one after the other, and updates the running statistics that they hold.

    Each block keeps its own parameters. They are stacked for the loop, and so are their gradients.

    Args:
      blocks: one or more that differ in nothing but the values of their parameters and running statistics, each called
        as ``block(x, training=..., scales=...)``. They keep the shape and the dtype of the map.
      x: a map.
      scales: those of each block, or None for all of them.
      training: whether they are called in training.
      remat: whether the insides of a block are computed again in the backward pass.

    Returns:
      The map after the last block.

    Raises:
      ValueError: the blocks differ.
    """
    splits = [nnx.split(block, nnx.Param, nnx.BatchStat) for block in blocks]
    definition = splits[0][0]
    if any(split[0] != definition for split in splits):
        raise ValueError("the blocks of a loop must be alike")

    def step(x: jax.Array, each: tuple[nnx.State, nnx.State, BranchScales]) -> tuple[jax.Array, nnx.State]:
        params, batch_stats, scales = each
        block: Any = nnx.merge(definition, params, batch_stats)
        y = call_rematerialized(block, x, scales) if remat else block(x, training=training, scales=scales)
        return y, nnx.state(block, nnx.BatchStat)

    own = [(params, batch_stats, scale) for (_, params, batch_stats), scale in zip(splits, scales, strict=True)]
    x, batch_stats = jax.lax.scan(step, x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *own))
    if training:
        for index, block in enumerate(blocks):
            nnx.update(block, jax.tree.map(lambda leaf, index=index: leaf[index], batch_stats))
    return x
