"""MobileNetV2s of torchvision."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(small_stem: bool) -> Any:
    import torchvision

    model = torchvision.models.mobilenet_v2(num_classes=NUM_CLASSES, dropout=0.0)
    if small_stem:
        model.features[0][0].stride = model.features[2].conv[1][0].stride = (1, 1)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    maps = []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index in (1, 3, 6, 13, 17):
            maps.append(x)
    return maps


NETWORKS = {
    f"mobilenet_v2{'_small_stem' if small_stem else ''}": Reference(
        build=functools.partial(_build, small_stem),
        layout="torchvision",
        shapes=((1, 32, 32, 3), (1, 21, 28, 3)) if small_stem else ((1, 224, 224, 3), (1, 64, 96, 3)),
        features=_features,
        training=(8, 32, 32, 3) if small_stem else None,
        recorded=small_stem,
    )
    for small_stem in (False, True)
}
