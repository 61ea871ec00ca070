"""Functions that XLA compiles on a CPU by themselves, as calls, and fuses with nothing around them.

XLA's CPU compiler (jax 0.10 to 0.12) computes what it fuses again in each loop that reads it, a depthwise convolution
in the mean, the variance and the output of the LayerNorm behind it; and what its library of products and sums accepts
it hands over in fusions of many layers, which take twice as long as their parts. A call that is marked as not to be
inlined stays one, through sharding, loops and derivatives; `jax.lax.optimization_barrier` is gone before XLA fuses.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Result = TypeVar("Result")


def unfused(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function of arrays as it is, but that on a CPU its inputs and outputs are arrays in memory."""
    marked, plain = cpu_call(function), jax.jit(function)

    @functools.wraps(function)
    def choose(*arrays: jax.Array) -> Result:
        return jax.lax.platform_dependent(*arrays, cpu=marked, default=plain)

    return choose


def cpu_call(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function as such a call, for what is chosen on a CPU alone (`jax.lax.platform_dependent`)."""

    @functools.wraps(function)
    def unmarked(*arrays: jax.Array) -> Result:
        with set_xla_metadata(inlineable="true"):  # the mark would reach what is called inside
            return function(*arrays)

    jitted = jax.jit(unmarked)  # so that a network's layers of one shape are traced once

    @functools.wraps(function)
    def call(*arrays: jax.Array) -> Result:
        with set_xla_metadata(inlineable="false"):
            return jitted(*arrays)

    return call
