"""EfficientNets of torchvision."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference

_SIZES = (224, 240, 260, 300, 380, 456, 528, 600)


def _build(number: int, small_stem: bool) -> Any:
    import torchvision

    create = getattr(torchvision.models, f"efficientnet_b{number}")
    model = create(num_classes=NUM_CLASSES, dropout=0.0, stochastic_depth_prob=0.0)
    if small_stem:
        model.features[0][0].stride = (1, 1)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    maps = []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index in (1, 2, 3, 5, 7):
            maps.append(x)
    return maps


NETWORKS = {
    f"efficientnet_b{number}": Reference(
        build=functools.partial(_build, number, False),
        layout="torchvision",
        shapes=((1, side, side, 3), (1, 64, 96, 3)),
        features=_features,
        training=(8, 96, 96, 3) if number in (0, 5) else None,
    )
    for number, side in enumerate(_SIZES)
}
NETWORKS["efficientnet_b0_small_stem"] = Reference(
    build=functools.partial(_build, 0, True),
    layout="torchvision",
    shapes=((1, 32, 32, 3), (1, 21, 28, 3)),
    features=_features,
    training=(8, 32, 32, 3),
    recorded=True,
)
