"""ResNets and ResNeXts of timm and torchvision, and the paper's for CIFAR written out."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(name: str, small_stem: bool) -> Any:
    import timm
    import torch

    model = timm.create_model(name, num_classes=NUM_CLASSES)
    if small_stem:
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    return model


def _build_resnext29(groups: int) -> Any:
    """Torchvision's blocks in three stages instead of four."""
    import torch
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, [3, 3, 3, 1], num_classes=NUM_CLASSES, groups=groups, width_per_group=64)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = model.layer4 = torch.nn.Identity()
    model.fc = torch.nn.Linear(1024, NUM_CLASSES)
    return model


def _build_for_cifar(depth: int) -> Any:
    """Section 4.2 of He et al. 2016, with the names of github.com/akamaster/pytorch_resnet_cifar10."""
    import torch
    from torch import nn

    def conv(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
            self.conv2, self.bn2 = conv(outputs, outputs, 1), nn.BatchNorm2d(outputs)
            self.stride, self.zeros = stride, outputs - inputs

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            x = nn.functional.avg_pool2d(x, 1, self.stride)
            batch, _, *sides = x.shape
            zeros = x.new_zeros(batch, self.zeros // 2, *sides)
            return torch.relu(y + torch.cat([zeros, x, zeros], 1))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = conv(3, 16, 1), nn.BatchNorm2d(16)
            widths = (16, 16, 32, 64)
            for stage in (1, 2, 3):
                blocks = [Block(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)]
                blocks += [Block(widths[stage], widths[stage], 1) for _ in range((depth - 2) // 6 - 1)]
                self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.linear = nn.Linear(64, NUM_CLASSES)

        def maps(self, x: Any) -> list[Any]:
            x, maps = torch.relu(self.bn1(self.conv1(x))), []
            for stage in (1, 2, 3):
                x = self.get_submodule(f"layer{stage}")(x)
                maps.append(x)
            return maps

        def forward(self, x: Any) -> Any:
            return self.linear(self.maps(x)[-1].mean((2, 3)))

    return Network()


def _features(model: Any, x: Any) -> list[Any]:
    return model.forward_intermediates(x, intermediates_only=True)[-4:]


# The small stem is for small images. At some shapes a value is so near to the kink of a ReLU that rounding decides its
# sign, which changes the gradient by 1e-3, and the more so the larger the network. At these shapes none is.
_LARGE = ((1, 224, 224, 3), (1, 160, 96, 3), (1, 64, 96, 3))
_SHAPES = {"resnet18": _LARGE, "resnet34": _LARGE, "resnet50": _LARGE, "resnet101": _LARGE[1:]}
_SHAPES |= {"resnext50_32x4d": ((1, 160, 96, 3), (1, 96, 96, 3), (1, 64, 64, 3))}
_SHAPES |= dict.fromkeys(("resnet152", "resnet200", "resnext101_32x8d"), _LARGE[2:])
_SMALL_STEM_SHAPES = ((1, 32, 32, 3), (1, 24, 40, 3))
_TRAINING = {
    ("resnet18", True): (8, 32, 32, 3),
    ("resnet50", False): (8, 160, 160, 3),
    ("resnext50_32x4d", False): (8, 160, 160, 3),
}
NETWORKS = {
    f"{name}{'_small_stem' if small_stem else ''}": Reference(
        build=functools.partial(_build, name, small_stem),
        layout="torchvision",
        shapes=_SMALL_STEM_SHAPES if small_stem else shapes,
        features=_features,
        training=_TRAINING.get((name, small_stem)),
        recorded=(name, small_stem) in (("resnet18", True), ("resnet50", False)),
        records_gradient=(name, small_stem) == ("resnet18", True),
    )
    for name, shapes in _SHAPES.items()
    for small_stem in (False, True)
}
NETWORKS |= {
    f"resnet{depth}": Reference(
        build=functools.partial(_build_for_cifar, depth),
        layout="akamaster",
        shapes=((1, 32, 32, 3), (1, 21, 30, 3)),
        features=lambda model, x: model.maps(x),
        training=(8, 32, 32, 3),
        recorded=depth == 20,
        records_gradient=depth == 20,
    )
    for depth in (20, 56, 110)
}
NETWORKS["resnext29_8x64d"] = Reference(
    build=functools.partial(_build_resnext29, 8), layout="torchvision", shapes=((1, 32, 32, 3), (1, 24, 24, 3))
)
