"""A function without the forms that its operations have for single platforms.

`jax.lax.platform_dependent` (see `convnext_jax.ops.cpu`) is a choice that JAX makes when it lowers a program. A
converter that reads the program before that meets all branches. Here the choice is made first, and calls are inlined,
so that what is left are the plain operations of one platform. On the way, operations can be replaced by others.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

# Primitives that are calls, and the parameter that holds what they call.
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


# Called with the inputs of an operation and, by name, with its parameters; returns what the operation does.
Replacement = Callable[..., Any]


def for_one_platform(
    function: Callable[..., Any],
    platform: str | None = None,
    replacements: Mapping[str, Replacement] | None = None,
) -> Callable[..., Any]:
    """Returns a function that is made of the operations that another one has on a platform.

    Args:
      function: of trees of arrays, to a tree of arrays.
      platform: ``cpu``, ``cuda``, ``tpu``, or None for one that has no forms of its own.
      replacements: what takes the place of an operation, by the name of its primitive or, for one with a gradient of
        its own (`jax.custom_vjp`), of its function.
    """
    interpreter = _Interpreter(platform, replacements or {})

    def plain(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = interpreter.call(closed, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return plain


class _Interpreter:
    def __init__(self, platform: str | None, replacements: Mapping[str, Replacement]) -> None:
        self._platform = platform
        self._replacements = replacements

    def call(self, called: Any, inputs: Sequence[Any]) -> list[Any]:
        """Returns the results of a jaxpr."""
        jaxpr, consts = (called.jaxpr, called.consts) if isinstance(called, core.ClosedJaxpr) else (called, ())
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

        def read(variable: Any) -> Any:
            return variable.val if isinstance(variable, core.Literal) else values[variable]

        for equation in jaxpr.eqns:
            results = self._results(equation, [read(variable) for variable in equation.invars])
            values |= zip(equation.outvars, results, strict=True)
        return [read(variable) for variable in jaxpr.outvars]

    def _results(self, equation: Any, inputs: list[Any]) -> Sequence[Any]:
        name, params = equation.primitive.name, equation.params
        called = params.get(_CALLS.get(name, ""))
        if name == "platform_index":
            return [None]  # read by the choice below alone
        if branches := params.get("branches_platforms"):
            number = next(i for i, names in enumerate(branches) if names is None or self._platform in names)
            return self.call(params["branches"][number], inputs[1:])
        if name == "custom_vjp_call" and (replacement := self._replacements.get(_function_name(called))):
            return [replacement(*inputs)]
        if called is not None:
            return self.call(called, inputs)
        if name in self._replacements:
            results = self._replacements[name](*inputs, **params)
        else:
            results = equation.primitive.bind(*inputs, **params)
        return results if equation.primitive.multiple_results else [results]


def _function_name(called: Any) -> str:
    return called.jaxpr.debug_info.func_name
