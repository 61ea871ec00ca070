"""DenseNets of torchvision, and those of pytorchcv for small images."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(depth: int) -> Any:
    import torchvision

    return getattr(torchvision.models, f"densenet{depth}")(num_classes=NUM_CLASSES)


def _build_small(depth: int, growth_rate: int) -> Any:
    import torch
    from pytorchcv.model_provider import get_model

    model = get_model(f"densenet{depth}_k{growth_rate}_bc_cifar10")
    model.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)  # for other images than those of 32 pixels
    model.output = torch.nn.Linear(model.output.in_features, NUM_CLASSES)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    maps = []
    for name, layer in model.features.named_children():
        x = layer(x)
        if name.startswith("denseblock"):
            maps.append(x.clone())  # the norm after it works in place
    return maps


def _small_features(model: Any, x: Any) -> list[Any]:
    maps = []
    for name, layer in model.features.named_children():
        x = layer(x)  # a stage begins with its transition
        if name.startswith("stage"):
            maps.append(x.clone())
    return maps


NETWORKS = {
    **{
        f"densenet{depth}": Reference(
            build=functools.partial(_build, depth),
            layout="torchvision",
            shapes=((1, 32, 48, 3), (1, 64, 64, 3)),
            features=_features,
            forward_shapes=((1, 224, 224, 3),),
            training=(8, 64, 96, 3) if depth == 121 else None,
        )
        for depth in (121, 169, 201, 161)
    },
    **{
        f"densenet{depth}_k{growth_rate}": Reference(
            build=functools.partial(_build_small, depth, growth_rate),
            layout="pytorchcv",
            shapes=((1, 8, 12, 3),),
            features=_small_features,
            forward_shapes=((1, 32, 32, 3),),
            training=(8, 32, 32, 3) if depth == 100 else None,
        )
        for depth, growth_rate in ((100, 12), (250, 24), (190, 40))
    },
}
