"""Multiply-adds and activation memory, counted from the traced computation and hence right for any model."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count_macs(function: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of the convolutions and matrix products that a function does, those of loops each time.

    A depthwise convolution counts as one, however a backend computes it. Taps on the zeros around a map count, as
    in the papers' figures.

    Args:
      function: of arrays; it is traced, not run.
      *args: arrays, or `jax.ShapeDtypeStruct` in their place.
    """
    return _macs(jax.make_jaxpr(function)(*args).jaxpr)


def activation_bytes(function: Callable[[jax.Array], Any], image: jax.ShapeDtypeStruct) -> int:
    """Bytes that the backward pass keeps of each image of a batch, as autodiff asks for them.

    XLA may need less, where it computes a value again instead of keeping it.

    Args:
      function: of a batch of images or maps [B,H,W,C]; it is traced, not run.
      image: shape [1,H,W,C] and dtype.
    """

    def kept(batch: int) -> int:
        images = jax.ShapeDtypeStruct((batch, *image.shape[1:]), image.dtype)
        residuals = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(function, x)[1], images))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in residuals)

    # The difference leaves out the parameters, which are kept once however many images there are.
    return kept(3) - kept(2)


def _macs(jaxpr: core.Jaxpr) -> int:
    total, platform_indices = 0, set()
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot_macs(equation)
        elif name == "conv_general_dilated":
            total += _conv_macs(equation)
        elif name == "platform_index":
            platform_indices.add(equation.outvars[0])
        elif name == "cond":
            # Of the ways to do one thing on different backends the last is the plain one.
            of_platforms = equation.invars[0] in platform_indices
            branches = [_macs(branch.jaxpr) for branch in params["branches"]]
            total += branches[-1] if of_platforms else max(branches)
        elif name == "while":
            raise ValueError("the multiply-adds of a loop of unknown length cannot be counted")
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(_macs(inner) for inner in _inner_jaxprs(name, params))
    return total


def _inner_jaxprs(name: str, params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    # A function with its own gradient, or stacks, carries the computation of those too, which is not done here.
    wanted = ("call_jaxpr", "fun_jaxpr", "call") if name.startswith("custom_") else tuple(params)
    for key in wanted:
        value = params.get(key)
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _dot_macs(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    return math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _conv_macs(equation: core.JaxprEqn) -> int:
    kernel = _shape(equation.invars[1])
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(_shape(equation.outvars[0])) * math.prod(kernel) // outputs


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
