"""AlexNets of torchvision, and the same with other widths and another stem."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference

_MAPS = (4, 11)  # where the maps that our `features` returns end


def _build(dims: tuple[int, ...], small_stem: bool) -> Any:
    import torch
    import torchvision

    model = torchvision.models.alexnet(num_classes=NUM_CLASSES)
    inputs = (3, *dims)
    for number, index in enumerate((0, 3, 6, 8, 10)):
        old = model.features[index]
        model.features[index] = torch.nn.Conv2d(inputs[number], dims[number], old.kernel_size, old.stride, old.padding)
    if small_stem:
        model.features[0] = torch.nn.Conv2d(3, dims[0], 3, padding=1)
        model.avgpool = torch.nn.AdaptiveAvgPool2d(3)
        model.classifier[1] = torch.nn.Linear(9 * dims[-1], 4096)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    maps = []
    for index, layer in enumerate(model.features):
        x = layer(x)
        if index in _MAPS:
            maps.append(x.clone())
    return maps


_TORCHVISION = (64, 192, 384, 256, 256)
_LARGE = ((1, 224, 224, 3), (1, 96, 128, 3))
NETWORKS = {
    "alexnet": Reference(functools.partial(_build, _TORCHVISION, False), "torchvision", _LARGE, _features),
    "alexnet_2012": Reference(
        functools.partial(_build, (96, 256, 384, 384, 256), False), "torchvision", _LARGE, _features
    ),
    "alexnet_small_stem": Reference(
        functools.partial(_build, _TORCHVISION, True),
        "torchvision",
        ((1, 24, 40, 3), (1, 48, 48, 3), (1, 32, 32, 3)),
        _features,
    ),
}
