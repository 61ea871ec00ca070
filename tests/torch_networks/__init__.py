"""Networks of other libraries that ours are compared with, one file for each family."""

from torch_networks import convnext, resnet, vit
from torch_networks.reference import NUM_CLASSES, Reference

__all__ = ["NETWORKS", "NUM_CLASSES", "Reference"]

NETWORKS: dict[str, Reference] = convnext.NETWORKS | resnet.NETWORKS | vit.NETWORKS
