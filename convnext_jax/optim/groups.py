"""Which parameters an optimiser treats in which way: one table of rules, of which each parameter meets exactly one."""

import dataclasses
import re
from typing import Any

import jax

from convnext_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that are treated alike.

    Attributes:
      name: what they are.
      pattern: regular expression that is found in their names, and in no others.
      decay: whether weight decay acts on them, and LAMB's trust ratio.
      muon: whether Muon takes them, where it is the optimiser.
    """

    name: str
    pattern: str
    decay: bool
    muon: bool = False

    def optimizer(self, name: str) -> str:
        """Which optimiser takes them where ``config.optim.name`` is this one."""
        return "adamw" if name == "muon" and not self.muon else name


# Decay pulls matrices and convolution kernels to zero; a norm, a bias, a layer scale or a GRN pulled to zero would only
# switch its branch off.
#
# Muon makes an update orthogonal, which is right for a matrix between two hidden layers, and for a convolution as the
# matrix from its window to its outputs (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon: "hidden layers",
# all convolutions but the first, not the head). A depthwise kernel is no matrix but one filter for each channel, and
# Swin-MLP's window kernel the small matrices of its heads side by side.
GROUPS: tuple[Group, ...] = (
    Group("stem kernels", r"^stem/(conv|more/\d+)/kernel$", decay=True),
    Group("depthwise kernels", r"^stages/\d+/blocks/\d+/(depthwise|convs/\d+/\d+)/kernel$", decay=True),
    Group("window kernels", r"^stages/\d+/blocks/\d+/spatial/kernel$", decay=True),
    Group("convolution kernels", r"^stages/\d+/(downsample/conv|blocks/\d+/dense)/kernel$", decay=True, muon=True),
    Group(
        "pointwise kernels",
        r"^stages/\d+/blocks/\d+/(expand|project|point|narrow/\d+)/kernel$",
        decay=True,
        muon=True,
    ),
    Group("LSTM kernels", r"^lstm/.*(/|_)kernel$", decay=True, muon=True),
    Group("head kernel", r"^head/kernel$", decay=True),
    Group("norms", r"(^|/|_)norm/(scale|bias)$", decay=False),
    Group("GRN", r"/grn/(gamma|beta)$", decay=False),
    Group("layer scales", r"/layer_scale$", decay=False),
    Group("biases", r"(?<!norm)/bias$", decay=False),
)


def parameter_names(params: Any) -> Any:
    """The tree of parameters with each array replaced by its name, the path to it joined by slashes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def group_of(name: str) -> Group:
    """The group of a parameter's name.

    >>> group_of("stages/0/blocks/2/grn/gamma").name
    'GRN'

    Raises:
      ValueError: no group's pattern is found in the name, or those of several; a renamed layer must not silently lose
        its decay.
    """
    groups = [group for group in GROUPS if re.search(group.pattern, name)]
    if len(groups) != 1:
        found = f"{len(groups)} groups ({', '.join(group.name for group in groups)})" if groups else "no group"
        raise ValueError(f"parameter {name!r} is covered by {found} of convnext_jax.optim.groups.GROUPS, not by one")
    return groups[0]


def decay_mask(params: Any) -> Any:
    """The tree of parameters with True where weight decay acts and False where it does not."""
    return jax.tree.map(lambda name: group_of(name).decay, parameter_names(params))


def muon_labels(params: Any) -> Any:
    """The tree of parameters with ``muon`` for those that Muon takes and ``adamw`` for the rest.

    Raises:
      UserError: there are parameters, and none for Muon.
    """
    labels = jax.tree.map(lambda name: group_of(name).optimizer("muon"), parameter_names(params))
    if set(jax.tree.leaves(labels)) == {"adamw"}:
        raise UserError(
            "config.optim.name=muon is for hidden matrices, and the model of config.model.name has none;"
            " take config.optim.name=adamw"
        )
    return labels
