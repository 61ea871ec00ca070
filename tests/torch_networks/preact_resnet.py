"""Pre-activation ResNets of pytorchcv, for CIFAR."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(depth: int) -> Any:
    import torch
    from pytorchcv.models.preresnet_cifar import CIFARPreResNet

    blocks = (depth - 2) // 9
    channels = [[4 * width] * blocks for width in (16, 32, 64)]
    model = CIFARPreResNet(channels, init_block_channels=16, bottleneck=True, num_classes=NUM_CLASSES)
    model.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)  # theirs has a window of 8 pixels
    return model


def _features(model: Any, x: Any) -> list[Any]:
    x, maps = model.features.init_block(x), []
    for stage in (model.features.stage1, model.features.stage2, model.features.stage3):
        x = stage(x)
        maps.append(x)
    return maps


# Of a thousand layers many a value is near to the kink of its ReLU. In a small image none is.
NETWORKS = {
    f"preact_resnet{depth}": Reference(
        build=functools.partial(_build, depth),
        layout="pytorchcv",
        shapes=((1, 32, 32, 3),) if depth == 164 else ((1, 8, 8, 3),),
        features=_features,
        training=(8, 32, 32, 3) if depth == 164 else None,
        recorded=depth == 164,
    )
    for depth in (164, 1001)
}
