"""A model as plain trees: its definition, its parameters, its running statistics, and the role of each parameter."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from convnext_jax.layers.parameters import Role

Definition = nnx.GraphDef[nnx.Module]
Tree = dict[str, Any]  # nested dictionaries with string keys and arrays, or shapes, at the leaves


def split_model(model: nnx.Module) -> tuple[Definition, Tree, Tree]:
    """Splits a model into its definition, its parameters and its running statistics.

    Args:
      model: any NNX module whose whole state is `nnx.Param` and `nnx.BatchStat`.

    Returns:
      The definition is hashable, and equal for equal models, so it can be a static argument of `jax.jit`. The
      parameters are a nested dictionary with string keys ("0", "1", ... for the entries of a list) and float32 arrays.
      The running statistics are a dictionary of the same kind, empty if there are none.
    """
    definition, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return definition, *(_with_string_keys(nnx.to_pure_dict(state)) for state in (params, batch_stats))


def merge_model(definition: Definition, params: Tree, batch_stats: Tree | None = None) -> Any:
    """Builds the model that `split_model` took apart, with other parameters and running statistics in their places."""
    return nnx.merge(definition, _with_list_indices(params), _with_list_indices(batch_stats or {}))


def batch_stats_of(model: nnx.Module) -> Tree:
    """Returns the running statistics of a model, as `split_model` does. A call with a key has updated them."""
    return _with_string_keys(nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))


@dataclasses.dataclass(frozen=True)
class AbstractModel:
    """A model before anything is computed.

    Attributes:
      definition: the model without its parameters.
      params: shapes and dtypes of the parameters, `jax.ShapeDtypeStruct` at the leaves.
      batch_stats: shapes and dtypes of the running statistics.
      roles: the role of each parameter, a tree of the same structure.
    """

    definition: Definition
    params: Tree
    batch_stats: Tree
    roles: Tree

    def merged(self) -> Any:
        """Returns the model with shapes as its parameters, which answers what needs no arithmetic."""
        return merge_model(self.definition, self.params, self.batch_stats)


def abstract_model(create: Callable[[], nnx.Module]) -> AbstractModel:
    """Returns the model that a function creates, with shapes for arrays. Nothing is computed or allocated."""
    found: list[tuple[Definition, Tree]] = []

    def arrays() -> tuple[Tree, Tree]:
        model = create()
        definition, params, batch_stats = split_model(model)
        found.append((definition, roles_of(model)))
        return params, batch_stats

    params, batch_stats = jax.eval_shape(arrays)
    return AbstractModel(found[0][0], params, batch_stats, found[0][1])


def roles_of(model: nnx.Module) -> Tree:
    """Returns the role of each parameter of a model, in the structure of the parameters.

    Raises:
      ValueError: a parameter was created without a role. A new layer must not silently lose its weight decay.
    """
    roles: dict[str, Role] = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = "/".join(map(str, path))
        role = variable.get_metadata().get("role")
        if not isinstance(role, Role):
            raise ValueError(f"parameter {name!r} has no role; create it with convnext_jax.layers.parameters.parameter")
        roles[name] = role
    return nested(roles)


def count_parameters(params: Tree) -> int:
    """Returns the number of scalars in ``params``. Shapes (`jax.eval_shape`) count like arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def flat(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their paths, such as ``stages/0/blocks/1/expand/kernel``.

    >>> flat({"head": {"bias": 1, "kernel": 2}})
    {'head/bias': 1, 'head/kernel': 2}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(leaves: Mapping[str, Any]) -> Tree:
    """Returns the tree of leaves by their paths, the inverse of `flat`.

    >>> nested({"head/bias": 1, "head/kernel": 2})
    {'head': {'bias': 1, 'kernel': 2}}
    """
    tree: Tree = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


# NNX numbers the entries of its lists with integers. Checkpoints and flags want one type of key.


def _with_string_keys(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _with_string_keys(value) for key, value in tree.items()}


def _with_list_indices(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {int(k) if k.isdecimal() else k: _with_list_indices(v) for k, v in tree.items()}
