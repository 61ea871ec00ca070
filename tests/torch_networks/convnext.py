"""ConvNeXts of timm."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(name: str) -> Any:
    import timm

    return timm.create_model(name, num_classes=NUM_CLASSES)


def _features(model: Any, x: Any) -> list[Any]:
    return model.forward_intermediates(x, intermediates_only=True)[-4:]


_SIZES = {
    "convnext": ("atto", "femto", "pico", "nano", "tiny", "small", "base"),
    "convnextv2": ("atto", "femto", "pico", "nano", "tiny", "base"),
}
NETWORKS = {
    f"{version}_{size}": Reference(
        build=functools.partial(_build, f"{version}_{size}"),
        layout="timm",
        shapes=((1, 224, 224, 3), (1, 160, 96, 3), (1, 64, 96, 3)),
        features=_features,
        recorded=size == "atto",
        records_gradient=f"{version}_{size}" == "convnextv2_atto",
    )
    for version, sizes in _SIZES.items()
    for size in sizes
}
