"""Which parameters an optimiser treats in which way: rules over parameter names that must cover every parameter."""

import re
from typing import Any

import jax

# Parameter names end in their role. Decay pulls matrices and convolution kernels to zero; a norm, a bias, a layer
# scale or a GRN pulled to zero would only switch its branch off.
DECAY_RULES: tuple[tuple[str, bool], ...] = (
    (r"(^|/|_)kernel$", True),
    (r"(^|/)(bias|scale|layer_scale|gamma|beta)$", False),
)


def parameter_names(params: Any) -> Any:
    """The tree of parameters with each array replaced by its name, the path to it joined by slashes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def decay_mask(params: Any) -> Any:
    """The tree of parameters with True where weight decay acts and False where it does not.

    Raises:
      ValueError: a parameter that no rule covers, or that rules disagree about; a renamed layer must not silently
        lose its decay.
    """

    def decays(name: str) -> bool:
        matches = {decay for pattern, decay in DECAY_RULES if re.search(pattern, name)}
        if len(matches) != 1:
            raise ValueError(
                f"parameter {name!r} is covered by {len(matches)} weight decay rules, not by one: {DECAY_RULES}"
            )
        return matches.pop()

    return jax.tree.map(decays, parameter_names(params))


def layer_scales(params: Any, decay: float) -> Any:
    """The tree of parameters with each one's factor of the learning rate, `decay` to the number of blocks behind it.

    The final norm and the head have factor 1, the last block `decay`, the one before it `decay` squared; a downsampling
    goes with the block behind it, and the stem is one further than the first block. Clark et al. 2020 (arXiv
    2003.10555).
    """
    names = jax.tree.leaves(parameter_names(params))
    blocks = sorted({block for block in map(_block, names) if block is not None})
    depth = {block: 1 + index for index, block in enumerate(blocks)}

    def scale(name: str) -> float:
        block = _block(name)
        if block is not None:
            layer = depth[block]
        else:
            layer = 0 if name.startswith("stem/") else 1 + len(blocks)
        return decay ** (1 + len(blocks) - layer)

    return jax.tree.map(scale, parameter_names(params))


def _block(name: str) -> tuple[int, int] | None:
    """Stage and block of a parameter's name; a downsampling counts as block 0 of its stage."""
    found = re.match(r"stages/(\d+)/(?:blocks/(\d+)|downsample)", name)
    return (int(found[1]), int(found[2] or 0)) if found else None
