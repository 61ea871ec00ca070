"""What a network costs: parameters, multiply-adds and activation memory, part by part.

Multiply-adds and memory are counted from the traced computation, and hence right for any network.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import abstract_model, flat, merge_model
from convnext_jax.models.registry import create_model


@dataclasses.dataclass(frozen=True)
class PartCost:
    """A row of the summary.

    Attributes:
      name: "stem", "stage 1" and so on, "head".
      output: shape of its output for one image, [H,W,C] or [classes].
      parameters: number of scalars.
      macs: multiply-adds for one image.
      activation_bytes: what its backward pass keeps of each image.
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int


def summarize(
    architecture: Architecture,
    *,
    height: int,
    width: int,
    num_classes: int,
    in_channels: int = 3,
    dtype: str = "float32",
) -> list[PartCost]:
    """Returns the parts of a model, in order. Nothing is computed or allocated.

    Raises:
      UserError: the image is too small for the model.
    """
    architecture.check_image_size(height, width)
    model = abstract_model(
        lambda: create_model(architecture, num_classes=num_classes, in_channels=in_channels, dtype=dtype)
    )
    sizes = {path: leaf.size for path, leaf in flat(model.params).items()}

    def zeros(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)

    def apply(name: str, params: Any, x: jax.Array) -> jax.Array:
        return merge_model(model.definition, params, zeros(model.batch_stats)).parts()[name](x)

    def apply_zeros(name: str, x: jax.Array) -> jax.Array:
        # The gradient by the map alone is wanted, so the parameters are constants, whatever their values.
        return apply(name, zeros(model.params), x)

    merged, rows = model.merged(), []
    x = jax.ShapeDtypeStruct((1, height, width, in_channels), jnp.dtype(dtype))
    for name in merged.parts():
        output = jax.eval_shape(functools.partial(apply, name), model.params, x)
        rows.append(
            PartCost(
                name=name,
                output=jax.tree.leaves(output)[-1].shape[1:],  # of a class token and a map, the map
                parameters=sum(size for path, size in sizes.items() if merged.part_of(path) == name),
                macs=count_macs(functools.partial(apply, name), model.params, x),
                activation_bytes=activation_bytes(functools.partial(apply_zeros, name), x),
            )
        )
        x = output
    return rows


@functools.cache
def parameters_and_macs(architecture: Architecture, height: int, width: int, num_classes: int) -> tuple[int, int]:
    """Returns the number of parameters and the multiply-adds for one image with three channels, in one trace.

    Raises:
      UserError: the image is too small for the model.
    """
    architecture.check_image_size(height, width)
    model = abstract_model(lambda: create_model(architecture, num_classes=num_classes))
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    macs = count_macs(
        lambda params, stats, x: merge_model(model.definition, params, stats)(x), model.params, model.batch_stats, image
    )
    return sum(leaf.size for leaf in flat(model.params).values()), macs


def count_macs(function: Callable[..., Any], *args: Any) -> int:
    """Returns the multiply-adds of the convolutions and matrix products of a function, those of loops each time.

    A depthwise convolution counts as one, however a platform computes it. Taps on the zeros around a map count, as in
    the papers' figures.

    >>> count_macs(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 4)))
    24

    Args:
      function: of arrays; it is traced, not run.
      *args: arrays, or `jax.ShapeDtypeStruct` in their place.
    """
    return _macs(jax.make_jaxpr(function)(*args).jaxpr)


def activation_bytes(function: Callable[[Any], Any], image: Any) -> int:
    """Returns the bytes that the backward pass keeps of each image of a batch, as autodiff asks for them.

    XLA may need less, if it computes a value again instead of keeping it.

    Args:
      function: of a batch of images or maps [B,...], or of a tree of such; it is traced, not run.
      image: shape [1,...] and dtype, of each.
    """

    def kept(batch: int) -> int:
        images = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), image)
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
            # Of the ways to do one thing on different platforms the last is the plain one.
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
    # A function with its own gradient, or with its own rule for `jax.vmap`, carries those computations too, which are
    # not done here.
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
