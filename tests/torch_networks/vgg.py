"""VGGs of torchvision, and the same with one linear layer."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(norm: bool, small: bool) -> Any:
    import torch
    import torchvision

    model = (torchvision.models.vgg16_bn if norm else torchvision.models.vgg16)(num_classes=NUM_CLASSES)
    if small:
        model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        model.classifier = torch.nn.Linear(512, NUM_CLASSES)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    import torch

    maps = []
    for layer in model.features:
        if isinstance(layer, torch.nn.MaxPool2d):
            maps.append(x.clone())
        x = layer(x)
    return maps


_SMALL = {True: ((1, 64, 64, 3), (1, 32, 64, 3), (1, 32, 32, 3)), False: ((1, 64, 64, 3), (1, 40, 72, 3))}
NETWORKS = {
    f"vgg16{'_bn' if norm else ''}{'_small' if small else ''}": Reference(
        build=functools.partial(_build, norm, small),
        layout="kuangliu" if small else "torchvision",
        shapes=_SMALL[norm] if small else ((1, 32, 48, 3), (1, 64, 64, 3)),
        features=_features,
        forward_shapes=() if small else ((1, 224, 224, 3),),
        training=(8, 64, 64, 3) if norm and small else None,
        recorded=norm and small,
    )
    for norm in (False, True)
    for small in (False, True)
}
