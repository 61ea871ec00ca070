"""What XLA's CPU compiler needs and no other. Nothing of this is left in the programs of other platforms.

XLA's CPU compiler (jax 0.10 to 0.12) fuses a producer into every loop that reads it, and computes it again in each: a
depthwise convolution in the mean, the variance and the output of the LayerNorm after it. What its library of products
and sums accepts, it hands over in fusions of many layers, which take twice as long as their parts. A call that is
marked as not to be inlined stays a call, through sharding, loops and derivatives. `jax.lax.optimization_barrier` does
not help: XLA removes it before it fuses.

The choice at lowering is `jax.lax.platform_dependent`, so a program contains the branch of its own platform alone.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from convnext_jax.ops.partition import batch_parts

Result = TypeVar("Result")


def unfused_on_cpu(function: Callable[..., Result], *, on_several: bool = False) -> Callable[..., Result]:
    """Returns the function with its inputs and outputs as arrays in memory on a CPU, and unchanged elsewhere.

    Args:
      function: of arrays.
      on_several: see `cpu_call`.
    """
    marked, plain = cpu_call(function, on_several=on_several), jax.jit(function)

    @functools.wraps(function)
    def choose(*arrays: jax.Array) -> Result:
        return jax.lax.platform_dependent(*arrays, cpu=marked, default=plain)

    return choose


def cpu_call(function: Callable[..., Result], *, on_several: bool = False) -> Callable[..., Result]:
    """Returns the function as a call that is not inlined, for use in the CPU branch of `jax.lax.platform_dependent`.

    Args:
      function: of arrays.
      on_several: whether it is a call in a program for several devices as well. Sums over the devices that are in a
        call of their own are not joined with others.
    """

    @functools.wraps(function)
    def unmarked(*arrays: jax.Array) -> Result:
        with set_xla_metadata(inlineable="true"):  # or the mark would reach the calls inside
            return function(*arrays)

    jitted = jax.jit(unmarked)  # so that layers of the same shape are traced once

    @functools.wraps(function)
    def call(*arrays: jax.Array) -> Result:
        if batch_parts() > 1 and not on_several:
            return jitted(*arrays)
        with set_xla_metadata(inlineable="false"):
            return jitted(*arrays)

    return call


def update_in_place_on_cpu(grads: Any, gradient_norm: jax.Array) -> Any:
    """Makes every part of the gradient depend on the whole of it, so that a CPU updates the parameters in place.

    In a loop over steps XLA's CPU compiler copies every parameter in each turn, unless the update is bound to come
    after the last use of the old parameters. Multiplying each gradient by one, computed from the norm of all of them,
    binds it. (XLA cannot fold ``0 * norm``, since the norm may be infinite or NaN.)

    Args:
      grads: a tree of arrays.
      gradient_norm: the norm over all of them, a scalar.

    Returns:
      The same values.
    """

    def bind(grads: Any, norm: jax.Array) -> Any:
        one = 1 + 0 * norm
        return jax.tree.map(lambda grad: grad * one, grads)

    return jax.lax.platform_dependent(grads, gradient_norm, cpu=bind, default=lambda grads, _: grads)


def vmap_or_loop_on_cpu(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Maps a function over the leading axis of its arguments: in a loop on one CPU device, by `jax.vmap` elsewhere.

    A loop executes only the branch of a `jax.lax.switch` that each element asks for. Under `jax.vmap` every element
    goes through all branches, which takes a CPU far longer. A batch that is split over devices is always vmapped, since
    a loop would gather it on each of them.
    """

    def loop(*arrays: jax.Array) -> jax.Array:
        return jax.lax.map(lambda each: function(*each), arrays)

    def choose(*arrays: jax.Array) -> jax.Array:
        vmapped = jax.vmap(function)
        on_cpu = loop if batch_parts() == 1 else vmapped
        return jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=vmapped)

    return choose
