"""Layer-wise decay of the learning rate: layers that are further from the head change less.

Clark et al., `ELECTRA <https://arxiv.org/abs/2003.10555>`_, 2020, section 3.1 and appendix B; the ConvNeXt papers
fine-tune with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import optax

from convnext_jax.models.parameters import AbstractModel, flat


@dataclasses.dataclass(frozen=True)
class Level:
    """Layers that share a factor.

    Attributes:
      factor: of the learning rate.
      paths: the paths of their parameters.
    """

    factor: float
    paths: tuple[str, ...]


def decay_levels(model: AbstractModel, decay: float, kind: str) -> list[Level]:
    """Returns the levels of a model from the input to the output, empty ones included.

    The head has the factor 1, the level before it ``decay``, the one before that ``decay`` squared, and so on.

    Args:
      model: the model.
      decay: factor from each level to the one before it, in (0, 1].
      kind: "single" or "grouped"; see `convnext_jax.models.interface.Model.depth_levels`.
    """
    prefixes: Sequence[tuple[str, ...]] = model.merged().depth_levels()[kind]
    paths, covered = list(flat(model.params)), set()
    levels = []
    for index, prefix in enumerate(prefixes):
        own = tuple(path for path in paths if path.startswith(prefix)) if prefix else ()
        covered |= set(own)
        levels.append(Level(decay ** (len(prefixes) - index), own))
    return [*levels, Level(1.0, tuple(path for path in paths if path not in covered))]


def scale_by_layer_decay(levels: Sequence[Level]) -> optax.GradientTransformation:
    """Returns a transformation that multiplies the updates of each level by its factor."""
    factors: Mapping[str, float] = {path: level.factor for level in levels for path in level.paths}

    def scale(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, update: update * factors[jax.tree_util.keystr(path, simple=True, separator="/")], updates
        )

    return optax.stateless(scale)
