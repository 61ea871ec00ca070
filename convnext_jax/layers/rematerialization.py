"""Rematerialization: what a block computes on the way is computed again in its backward pass instead of being kept."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from convnext_jax.layers.stochastic import BranchScales
from convnext_jax.ops.cpu import unfused_on_cpu


def rematerialized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose backward pass keeps its arguments alone.

    `jax.checkpoint` does the same with barriers, which XLA's CPU compiler removes (jax 0.10 to 0.12): it finds what is
    computed again among what it has, and keeps it after all. Here the backward pass is a call of its own on a CPU, and
    has to wait for the gradient.

    Args:
      function: from trees of floating-point arrays to a tree of floating-point arrays.

    Reference:
      Chen et al., `Training Deep Nets with Sublinear Memory Cost <https://arxiv.org/abs/1604.06174>`_, 2016.
    """

    def gradients(arguments: tuple[Any, ...], grads: Any) -> tuple[Any, ...]:
        # For the platforms that have no such call.
        arguments, grads = jax.lax.optimization_barrier((arguments, grads))
        _, pull = jax.vjp(function, *arguments)
        return pull(grads)

    def forward(*arguments: Any) -> tuple[Any, tuple[Any, ...]]:
        return function(*arguments), arguments

    call = jax.custom_vjp(function)
    call.defvjp(forward, unfused_on_cpu(gradients, on_several=True))
    return call


def call_rematerialized(block: nnx.Module, x: Any, scales: BranchScales) -> Any:
    """Calls a block in training with rematerialization, and updates the running statistics that it holds.

    Args:
      block: called as ``block(x, training=True, scales=scales)``.
      x: a map, or a tree of maps.
      scales: those of its branches.
    """
    definition, params, batch_stats = nnx.split(block, nnx.Param, nnx.BatchStat)

    def call(params: nnx.State, batch_stats: nnx.State, x: Any, scales: BranchScales) -> tuple[Any, nnx.State]:
        copy: Any = nnx.merge(definition, params, batch_stats)
        y = copy(x, training=True, scales=scales)
        return y, nnx.state(copy, nnx.BatchStat)

    y, batch_stats = rematerialized(call)(params, batch_stats, x, scales)
    nnx.update(block, batch_stats)
    return y
