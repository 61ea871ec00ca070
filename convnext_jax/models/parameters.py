"""A model as (definition, parameters, statistics): what jit closes over, what is trained, what is averaged."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

Definition = nnx.GraphDef[nnx.Module]
Params = dict[str, Any]  # nested, string keys, float32 arrays at the leaves


def split_model(model: nnx.Module) -> tuple[Definition, Params, Params]:
    """Splits a model into its structure, its parameters and its running statistics.

    Args:
      model: any NNX module whose whole state is `nnx.Param` and `nnx.BatchStat`.

    Returns:
      The definition, hashable and equal for equal models, hence good as a static argument of `jax.jit`; the
      parameters, a nested dict with string keys ("0", "1", ... for the entries of a list); the running statistics of
      BatchNorm in a dict of the same kind, empty without BatchNorm.
    """
    definition, params, statistics = nnx.split(model, nnx.Param, nnx.BatchStat)
    return definition, *(_with_string_keys(nnx.to_pure_dict(state)) for state in (params, statistics))


def abstract_model(create: Callable[[], nnx.Module]) -> tuple[Definition, Params, Params]:
    """What `split_model` would give of the model that a function creates, with shapes in place of arrays.

    Nothing is computed or allocated.
    """
    definitions = []

    def arrays() -> tuple[Params, Params]:
        definition, params, statistics = split_model(create())
        definitions.append(definition)
        return params, statistics

    params, statistics = jax.eval_shape(arrays)
    return definitions[0], params, statistics


def merge_model(definition: Definition, params: Params, statistics: Params | None = None) -> Any:
    """Builds the model that `split_model` took apart, with other parameters and statistics in their places."""
    return nnx.merge(definition, _with_list_indices(params), _with_list_indices(statistics or {}))


def running_statistics(model: nnx.Module) -> Params:
    """The running statistics of a model, as `split_model` gives them; a call with a key has moved them on."""
    return _with_string_keys(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))


def count_parameters(params: Params) -> int:
    """Number of scalars in `params`; shapes (`jax.eval_shape`) count like arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def flat_params(params: Any) -> dict[str, Any]:
    """Parameters by their paths, ``stages/0/blocks/1/expand/kernel`` and the like."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested_params(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flat_params`."""
    params: Params = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return params


# NNX numbers the entries of its lists with integers; checkpoints and flags want one type of key.


def _with_string_keys(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _with_string_keys(value) for key, value in tree.items()}


def _with_list_indices(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {int(k) if k.isdecimal() else k: _with_list_indices(v) for k, v in tree.items()}
