"""Rematerialisation: what a function computed on the way is computed again in its backward pass, not kept."""

from collections.abc import Callable
from typing import Any

import jax

from convnext_jax.ops.cpu import unfused


def rematerialised(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A function whose backward pass keeps its arguments alone (Chen et al. 2016, arXiv 1604.06174).

    `jax.checkpoint` does the same with barriers, which XLA removes on a CPU (jax 0.10 to 0.12): it finds what is
    computed again among what it has, and keeps it after all. Here the backward pass is a call of its own there, that
    has to wait for the gradient.

    Args:
      function: of pytrees of floating-point arrays.
    """

    @unfused
    def gradients(arguments: tuple[Any, ...], grad: jax.Array) -> tuple[Any, ...]:
        # For the platforms that have no such call.
        arguments, grad = jax.lax.optimization_barrier((arguments, grad))
        _, pull = jax.vjp(function, *arguments)
        return pull(grad)

    def forward(*arguments: Any) -> tuple[jax.Array, tuple[Any, ...]]:
        return function(*arguments), arguments

    call = jax.custom_vjp(function)
    call.defvjp(forward, gradients)
    return call
