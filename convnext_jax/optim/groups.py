"""Which parameters an optimiser treats in which way: rules over parameter names that must cover every parameter."""

import re
from typing import Any

import jax

# Parameter names end in their role. Decay pulls matrices and convolution kernels to zero; a norm, a bias or a layer
# scale pulled to zero would only switch its branch off.
DECAY_RULES: tuple[tuple[str, bool], ...] = (
    (r"(^|/)kernel$", True),
    (r"(^|/)(bias|scale|layer_scale)$", False),
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
