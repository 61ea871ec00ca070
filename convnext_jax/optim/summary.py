"""Where each parameter of a model goes: the groups with what is done to them, and the layers with their factors."""

import collections
import dataclasses
from typing import Any

from convnext_jax.models.parameters import flat_params
from convnext_jax.optim.groups import GROUPS, group_of
from convnext_jax.optim.layer_decay import layer_factors, layer_label, layer_of


@dataclasses.dataclass(frozen=True)
class GroupRow:
    """A group of parameters as an optimiser treats it.

    Attributes:
      group: its name.
      optimizer: which optimiser takes it.
      weight_decay: whether weight decay acts on it.
      tensors: number of arrays.
      parameters: number of scalars.
      pattern: regular expression that is found in its parameters' names.
    """

    group: str
    optimizer: str
    weight_decay: bool
    tensors: int
    parameters: int
    pattern: str


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """A layer under layer-wise decay.

    Attributes:
      layer: ``stem``, ``stage 1 block 1`` and so on, ``head``.
      factor: of its learning rate.
      tensors: number of arrays.
      parameters: number of scalars.
    """

    layer: str
    factor: float
    tensors: int
    parameters: int


def summarize_groups(params: Any, optimizer: str) -> list[GroupRow]:
    """A row for each group, those of which the model has no parameter among them.

    Args:
      params: the parameters, or `jax.ShapeDtypeStruct` in their place.
      optimizer: one of `convnext_jax.config.OPTIMIZERS`.

    Raises:
      ValueError: a parameter that not exactly one group covers.
    """
    sizes = collections.defaultdict(list)
    for name, leaf in flat_params(params).items():
        sizes[group_of(name)].append(leaf.size)
    return [
        GroupRow(
            group=group.name,
            optimizer=group.optimizer(optimizer),
            weight_decay=group.decay,
            tensors=len(sizes[group]),
            parameters=sum(sizes[group]),
            pattern=group.pattern,
        )
        for group in GROUPS
    ]


def summarize_layers(params: Any, decay: float) -> list[LayerRow]:
    """A row for each layer, from the stem to the head.

    Args:
      params: the parameters, or `jax.ShapeDtypeStruct` in their place.
      decay: factor of the learning rate from each block to the one before it, in (0, 1].
    """
    sizes = collections.defaultdict(list)
    for name, leaf in flat_params(params).items():
        sizes[layer_of(name)].append(leaf.size)
    return [
        LayerRow(layer_label(layer), factor, tensors=len(sizes[layer]), parameters=sum(sizes[layer]))
        for layer, factor in layer_factors(params, decay).items()
    ]
