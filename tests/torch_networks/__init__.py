"""Networks of other libraries that ours are compared with, one file for each family."""

from torch_networks import (
    alexnet,
    compact_transformer,
    convnext,
    cvt,
    densenet,
    efficientnet,
    googlenet,
    mobilenet_v2,
    preact_resnet,
    replknet,
    resnet,
    swin,
    vgg,
    vit,
    wavemix,
)
from torch_networks.reference import NUM_CLASSES, Reference

__all__ = ["NETWORKS", "NUM_CLASSES", "Reference"]

_FAMILIES = (
    alexnet,
    convnext,
    cvt,
    densenet,
    efficientnet,
    googlenet,
    mobilenet_v2,
    preact_resnet,
    replknet,
    resnet,
    vgg,
    swin,
    compact_transformer,
    vit,
    wavemix,
)
NETWORKS: dict[str, Reference] = {name: each for family in _FAMILIES for name, each in family.NETWORKS.items()}
