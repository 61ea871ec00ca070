"""ResNets of timm and torchvision, whose names and answers are the same."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(depth: int, small_stem: bool) -> Any:
    import timm
    import torch

    model = timm.create_model(f"resnet{depth}", num_classes=NUM_CLASSES)
    if small_stem:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def _features(model: Any, x: Any) -> list[Any]:
    return model.forward_intermediates(x, intermediates_only=True)[-4:]


# The small stem is for small images. At some shapes a value is so near to the kink of a ReLU that rounding decides its
# sign, which changes the gradient by 1e-3, and the more so the larger the network. At these shapes none is.
_LARGE = ((1, 224, 224, 3), (1, 160, 96, 3), (1, 64, 96, 3))
_SHAPES = {18: _LARGE, 34: _LARGE, 50: _LARGE, 101: _LARGE[1:]}
_SMALL_STEM_SHAPES = ((1, 32, 32, 3), (1, 24, 40, 3))
NETWORKS = {
    f"resnet{depth}{'_small_stem' if small_stem else ''}": Reference(
        build=functools.partial(_build, depth, small_stem),
        layout="torchvision",
        shapes=_SMALL_STEM_SHAPES if small_stem else shapes,
        features=_features,
        training={(18, True): (8, 32, 32, 3), (50, False): (8, 160, 160, 3)}.get((depth, small_stem)),
        recorded=(depth, small_stem) in ((18, True), (50, False)),
        records_gradient=(depth, small_stem) == (18, True),
    )
    for depth, shapes in _SHAPES.items()
    for small_stem in (False, True)
}
