"""What is done to which parameter of a model: a row for each role, and for each level of layer-wise decay."""

import collections
import dataclasses
import re

from convnext_jax.layers.parameters import Role
from convnext_jax.models.parameters import AbstractModel, flat
from convnext_jax.optim.layer_decay import decay_levels


@dataclasses.dataclass(frozen=True)
class RoleRow:
    """The parameters of a role, as an optimizer treats them.

    Attributes:
      role: what they are.
      optimizer: which optimizer takes them.
      weight_decay: whether weight decay acts on them.
      tensors: number of arrays.
      parameters: number of scalars.
    """

    role: str
    optimizer: str
    weight_decay: bool
    tensors: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class LevelRow:
    """A level of layer-wise decay.

    Attributes:
      layers: the layers in words, such as "stem, stage 1 block 1".
      factor: of their learning rate.
      tensors: number of arrays.
      parameters: number of scalars.
    """

    layers: str
    factor: float
    tensors: int
    parameters: int


def summarize_roles(model: AbstractModel, optimizer: str) -> list[RoleRow]:
    """Returns a row for each role that the model has parameters of.

    Args:
      model: the model.
      optimizer: one of `convnext_jax.config.checks.OPTIMIZERS`.
    """
    sizes: dict[Role, list[int]] = collections.defaultdict(list)
    roles = flat(model.roles)
    for path, leaf in flat(model.params).items():
        sizes[roles[path]].append(leaf.size)
    return [
        RoleRow(role.label, role.optimizer(optimizer), role.decays, len(sizes[role]), sum(sizes[role]))
        for role in Role
        if role in sizes
    ]


def summarize_levels(model: AbstractModel, decay: float, kind: str) -> list[LevelRow]:
    """Returns a row for each level that has parameters, from the input to the output; see `decay_levels`."""
    sizes = {path: leaf.size for path, leaf in flat(model.params).items()}
    return [
        LevelRow(
            ", ".join(dict.fromkeys(map(_layer_of, level.paths))),
            level.factor,
            len(level.paths),
            sum(sizes[path] for path in level.paths),
        )
        for level in decay_levels(model, decay, kind)
        if level.paths
    ]


def _layer_of(path: str) -> str:
    """Returns the layer that a parameter belongs to, in words.

    >>> _layer_of("stages/0/blocks/2/expand/kernel"), _layer_of("norm/scale")
    ('stage 1 block 3', 'head')
    """
    if block := re.match(r"stages/(\d+)/blocks/(\d+)/", path):
        return f"stage {int(block[1]) + 1} block {int(block[2]) + 1}"
    if stage := re.match(r"stages/(\d+)/downsample/", path):
        return f"stage {int(stage[1]) + 1} downsampling"
    return "stem" if path.startswith("stem/") else "head"
