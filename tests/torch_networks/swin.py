"""Swin Transformers of torchvision."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference

# Channels, depths and heads of each stage, and channels of the MLP over channels outside.
_SIZES = {
    "swin_tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], 4),
    "swin_small": (96, [2, 2, 18, 2], [3, 6, 12, 24], 4),
    "swin_base": (128, [2, 2, 18, 2], [4, 8, 16, 32], 4),
    "swin_3stage": (96, [2, 6, 4], [3, 6, 12], 2),
}


def _build(name: str, patch: int, window: int) -> Any:
    from torchvision.models.swin_transformer import SwinTransformer

    dim, depths, heads, expansion = _SIZES[name]
    return SwinTransformer([patch] * 2, dim, depths, heads, [window] * 2, expansion, num_classes=NUM_CLASSES)


def _features(model: Any, x: Any) -> list[Any]:
    maps = []
    for number, part in enumerate(model.features):
        x = part(x)
        if number % 2:  # the others are the stem and the mergings
            maps.append(x.permute(0, 3, 1, 2))
    return maps


# Whole windows; windows that must be filled up; images that are no whole number of patches; maps below a window.
_LARGE = ((1, 224, 224, 3), (1, 150, 96, 3), (1, 66, 32, 3))
_SMALL = ((1, 64, 48, 3), (1, 46, 39, 3), (1, 32, 32, 3))
NETWORKS = {
    name: Reference(functools.partial(_build, name, 4, 7), "torchvision", _LARGE, _features)
    for name in ("swin_tiny", "swin_small", "swin_base")
}
NETWORKS |= {
    f"{name}_patch{patch}_window4": Reference(
        build=functools.partial(_build, name, patch, 4),
        layout="torchvision",
        shapes=_SMALL,
        features=_features,
        recorded=(name, patch) == ("swin_3stage", 2),
    )
    for name in _SIZES
    for patch in (2, 4)
    if patch == 2 or name == "swin_3stage"
}
