"""The steps of the road from ResNet to ConvNeXt, in order, with the paper's figures.

Liu et al., `A ConvNet for the 2020s <https://arxiv.org/abs/2201.03545>`_, 2022, figure 2.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convnext_jax.errors import UserError, nearest
from convnext_jax.models.registry import named_architecture
from convnext_jax.models.road import RoadArchitecture


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the road.

    Attributes:
      name: of the step.
      what: what it changes, in words.
      changes: the fields of `RoadArchitecture` that it changes.
      top1: the paper's top-1 on ImageNet for the small road, in percent.
      gmacs: the paper's multiply-adds for the small road at 224 px, in 10^9; None where it gives no figure of its own.
      after: the step that it changes, if that is not the one before: each kernel size is tried after ``moved_up``, and
        the road goes on from 7.
    """

    name: str
    what: str
    changes: Mapping[str, Any]
    top1: float
    gmacs: float | None = None
    after: str | None = None


def _kernel(size: int, top1: float, gmacs: float | None) -> Step:
    return Step(f"kernel{size}", f"kernels of {size}x{size}", {"kernel_size": size}, top1, gmacs, after="moved_up")


STEPS = (
    Step("resnet", "ResNet, with the modern recipe", {}, 78.8, 4.1),
    Step("stage_ratio", "depths in the ratio of Swin's", {}, 79.4, 4.5),
    Step("patchify", "patches as the stem", {}, 79.5, 4.4),
    Step("depthwise", "depthwise convolutions", {"convolution": "depthwise"}, 78.3, 2.4),
    Step("width", "width as Swin's", {}, 80.5, 5.3),
    Step("inverted", "inverted bottleneck", {"design": "inverted"}, 80.6, 4.6),
    Step("moved_up", "depthwise convolution first", {"design": "spatial_first"}, 79.9, 4.1),
    _kernel(5, 80.4, 4.1),
    _kernel(7, 80.6, None),
    _kernel(9, 80.6, None),
    _kernel(11, 80.5, 4.3),
    Step("gelu", "GELU for ReLU", {"activation": "gelu"}, 80.6, after="kernel7"),
    Step("one_activation", "one activation a block", {"one_activation": True}, 81.3),
    Step("one_norm", "one norm a block", {"one_norm": True}, 81.4),
    Step("layer_norm", "LayerNorm for BatchNorm", {"norm": "layer"}, 81.5),
    Step(
        "separate_downsampling",
        "downsampling layers of their own: ConvNeXt",
        {"separate_downsampling": True, "layer_scale": 1e-6},
        82.0,
        4.5,
    ),
)


@dataclasses.dataclass(frozen=True)
class Road:
    """A road of one size.

    Attributes:
      network: the name of its first network.
      changes: what its steps change that depends on the size, by step.
    """

    network: str
    changes: Mapping[str, Mapping[str, Any]]


ROADS = {
    "tiny": Road("road_tiny", {"stage_ratio": {"depths": (3, 3, 9, 3)}, "width": {"width": 96}}),
    "base": Road("road_base", {"stage_ratio": {"depths": (3, 3, 27, 3)}, "width": {"width": 128}}),
    # A quarter of the small road's width, for trials on a CPU.
    "quarter": Road(
        "road_tiny",
        {"resnet": {"width": 16}, "stage_ratio": {"depths": (3, 3, 9, 3)}, "width": {"width": 24}},
    ),
}


def road(size: str = "tiny", *, small_images: bool = False) -> dict[str, RoadArchitecture]:
    """Returns the network of each step.

    >>> road()["gelu"].activation
    'gelu'

    Args:
      size: "tiny" goes from ResNet-50 to ConvNeXt-T, "base" from ResNet-200 to ConvNeXt-B; "quarter"
        is the first with a quarter of its channels.
      small_images: whether the stems are for images of 32 or 64 pixels, a 3x3 convolution with stride 2 and patches of
        2x2 pixels, instead of those of the paper for 224.

    Raises:
      UserError: an unknown size.
    """
    if size not in ROADS:
        raise UserError(f"unknown road {size!r}: {nearest(size, ROADS)}")
    stems = ("conv3x3_s2", "patch2") if small_images else ("conv7x7_s2_pool", "patch4")
    by_size = ROADS[size].changes
    steps: dict[str, RoadArchitecture] = {}
    network: Any = named_architecture(ROADS[size].network, {"stem": stems[0]})
    for step in STEPS:
        before = steps[step.after] if step.after else network
        stem = {"stem": stems[1]} if step.name == "patchify" else {}
        network = dataclasses.replace(before, **({**step.changes, **by_size.get(step.name, {}), **stem}))
        steps[step.name] = network
    return steps


def step_of(architecture: object) -> str | None:
    """Returns the name of the step that a network is, of any road and with any stem, None if it is none.

    >>> step_of(road("base", small_images=True)["gelu"])
    'gelu'
    """
    if not isinstance(architecture, RoadArchitecture):
        return None
    for size in ROADS:
        for name, network in road(size).items():
            patches = architecture.stem.startswith("patch") == network.stem.startswith("patch")
            if patches and dataclasses.replace(architecture, stem=network.stem) == network:
                return name
    return None
