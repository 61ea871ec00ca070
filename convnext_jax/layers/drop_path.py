"""Stochastic depth: residual branches dropped for whole samples (Huang et al. 2016, arXiv 1603.09382)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import unfused

# Of the residual branches of a block, [B] each; None keeps everything.
BranchScales = tuple[jax.Array, ...] | None


def linear_rates(last: float, count: int) -> list[float]:
    """Drop rates of `count` blocks, growing linearly from 0 to `last`."""
    return [last * index / max(count - 1, 1) for index in range(count)]


def draw_branch_scales(key: jax.Array, rates: Sequence[float], batch: int) -> tuple[jax.Array, ...]:
    """What each sample's branches are multiplied by, independent of each other.

    One draw for the whole network, and an array for each branch: with a generator for each block, and its rate as a
    constant in all that follows, a small network took longer to compile on a CPU (benchmarks/notes.md).

    Args:
      key: of this draw alone.
      rates: probability of a drop for each branch, in [0, 1).
      batch: number of samples.

    Returns:
      For each branch float32 [batch]: 0 where it is dropped, else 1 / (1 - rate), which preserves the mean.
    """

    @unfused
    def draw(key: jax.Array) -> tuple[jax.Array, ...]:
        by_branch = jnp.asarray(rates, jnp.float32)[:, None]
        kept = jax.random.uniform(key, (len(rates), batch)) >= by_branch
        return tuple(jnp.where(kept, 1.0 / (1.0 - by_branch), 0.0))

    return draw(key)


def drop_path(branch: jax.Array, scales: jax.Array | None) -> jax.Array:
    """A branch [B, ...] times its samples' scales [B], the product in float32; None keeps everything."""
    if scales is None:
        return branch
    scales = scales.reshape((-1,) + (1,) * (branch.ndim - 1))
    return (branch * scales).astype(branch.dtype)
