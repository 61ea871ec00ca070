"""GoogLeNets of torchvision, with the windows of the paper too, and with a stem for small images."""

import functools
import importlib
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _blocks_of_the_paper() -> list[Any]:
    """torchvision's parts with biases in place of BatchNorm, and with windows of 5x5."""
    import torch

    # The module's name is also that of a function.
    parts = importlib.import_module("torchvision.models.googlenet")

    class Conv(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, **options: Any) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(inputs, outputs, **options)

        def forward(self, x: Any) -> Any:
            return self.conv(x).relu()

    def inception(*channels: int) -> Any:
        block = parts.Inception(*channels, conv_block=Conv)
        block.branch3[1] = Conv(channels[4], channels[5], kernel_size=5, padding=2)
        return block

    return [Conv, inception, functools.partial(parts.InceptionAux, conv_block=Conv)]


def _build(version: str) -> Any:
    import torch
    import torchvision

    blocks = _blocks_of_the_paper() if version == "_2014" else None
    model = torchvision.models.googlenet(
        num_classes=NUM_CLASSES, init_weights=False, blocks=blocks, dropout=0.0, dropout_aux=0.0
    )
    if version == "_2014":
        model.maxpool4 = torch.nn.MaxPool2d(3, stride=2, ceil_mode=True)
    if version == "_small_stem":
        model.conv1.conv = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool1 = model.maxpool2 = torch.nn.Identity()
    return model


def _features(model: Any, x: Any) -> list[Any]:
    """What the last block of each stage returns."""
    maps: list[Any] = []
    last = (model.inception3b, model.inception4e, model.inception5b)
    hooks = [block.register_forward_hook(lambda module, given, result: maps.append(result)) for block in last]
    model(x)
    for hook in hooks:
        hook.remove()
    return maps


def _training_outputs(outputs: Any) -> list[Any]:
    return [outputs.logits, outputs.aux_logits1, outputs.aux_logits2]


_LARGE = {"forward_shapes": ((1, 224, 224, 3),), "shapes": ((1, 32, 32, 3), (1, 40, 64, 3))}
_SMALL = {"forward_shapes": ((1, 32, 32, 3),), "shapes": ((1, 8, 12, 3), (1, 16, 16, 3))}
NETWORKS = {
    f"googlenet{version}": Reference(
        build=functools.partial(_build, version),
        layout="torchvision",
        features=_features,
        training=(8, 32, 32, 3) if small else (8, 64, 96, 3),
        training_outputs=_training_outputs,
        training_fields={"auxiliary_dropout": 0.0},
        **(_SMALL if small else _LARGE),
    )
    for version, small in (("", False), ("_2014", False), ("_small_stem", True))
}
