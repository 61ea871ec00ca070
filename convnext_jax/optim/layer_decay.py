"""Layer-wise decay of the learning rate: what lies further from the head changes less.

Clark et al. 2020 (arXiv 2003.10555), section 3.1 and appendix B; the ConvNeXt papers fine-tune with it.
"""

import re
import sys
from typing import Any

import jax
import optax

from convnext_jax.optim.groups import parameter_names

_STEM, _HEAD = (-1, 0), (sys.maxsize, 0)


def layer_of(name: str) -> tuple[int, int]:
    """The place of a parameter's layer, which sorts from the stem to the head.

    A block's is its stage and number, a downsampling goes with the block behind it, and what comes behind the last
    stage is the head.
    """
    if block := re.match(r"stages/(\d+)/(?:blocks/(\d+)|downsample)/", name):
        return int(block[1]), int(block[2] or 0)
    return _STEM if name.startswith("stem/") else _HEAD


def layer_label(layer: tuple[int, int]) -> str:
    """The name of a layer: ``stem``, ``stage 1 block 1`` and so on, ``head``."""
    stage, block = layer
    return {_STEM: "stem", _HEAD: "head"}.get(layer, f"stage {stage + 1} block {block + 1}")


def layer_factors(params: Any, decay: float) -> dict[tuple[int, int], float]:
    """Each layer's factor of the learning rate, from the stem's to the head's.

    The head has 1, the last block `decay`, the one before it `decay` squared, and so on; the stem is one further than
    the first block.
    """
    layers = sorted({layer_of(name) for name in jax.tree.leaves(parameter_names(params))})
    return {layer: decay ** (len(layers) - 1 - index) for index, layer in enumerate(layers)}


def scale_by_layer_decay(decay: float) -> optax.GradientTransformation:
    """Multiplies the updates of each layer by its factor of the learning rate."""

    def scale(updates: optax.Updates, params: optax.Params | None = None) -> optax.Updates:
        del params
        factors = layer_factors(updates, decay)
        return jax.tree.map(lambda update, name: update * factors[layer_of(name)], updates, parameter_names(updates))

    return optax.stateless(scale)
