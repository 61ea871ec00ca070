"""Names and shapes of ConvNeXt's parameters in PyTorch checkpoints, both ways, without torch.

Three layouts are in use: the reference's (facebookresearch/ConvNeXt and ConvNeXt-V2), timm's and that of Hugging Face
transformers.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

# Places of our parameters and of theirs; {i} is a stage, {j} a block of it, {k} a block of the whole network.
_PLACES: dict[str, dict[str, str]] = {
    "facebookresearch": {
        "stem/conv": "downsample_layers.0.0",
        "stem/norm": "downsample_layers.0.1",
        "stages/{i}/downsample/norm": "downsample_layers.{i}.0",
        "stages/{i}/downsample/conv": "downsample_layers.{i}.1",
        "stages/{i}/blocks/{j}/depthwise": "stages.{i}.{j}.dwconv",
        "stages/{i}/blocks/{j}/norm": "stages.{i}.{j}.norm",
        "stages/{i}/blocks/{j}/expand": "stages.{i}.{j}.pwconv1",
        "stages/{i}/blocks/{j}/project": "stages.{i}.{j}.pwconv2",
        "stages/{i}/blocks/{j}/grn": "stages.{i}.{j}.grn",
        "stages/{i}/blocks/{j}": "stages.{i}.{j}",
        "norm": "norm",
        "head": "head",
    },
    "timm": {
        "stem/conv": "stem.0",
        "stem/norm": "stem.1",
        "stages/{i}/downsample/norm": "stages.{i}.downsample.0",
        "stages/{i}/downsample/conv": "stages.{i}.downsample.1",
        "stages/{i}/blocks/{j}/depthwise": "stages.{i}.blocks.{j}.conv_dw",
        "stages/{i}/blocks/{j}/norm": "stages.{i}.blocks.{j}.norm",
        "stages/{i}/blocks/{j}/expand": "stages.{i}.blocks.{j}.mlp.fc1",
        "stages/{i}/blocks/{j}/project": "stages.{i}.blocks.{j}.mlp.fc2",
        "stages/{i}/blocks/{j}/grn": "stages.{i}.blocks.{j}.mlp.grn",
        "stages/{i}/blocks/{j}": "stages.{i}.blocks.{j}",
        "norm": "head.norm",
        "head": "head.fc",
    },
    "transformers": {
        "stem/conv": "embeddings.patch_embeddings",
        "stem/norm": "embeddings.layernorm",
        "stages/{i}/downsample/norm": "encoder.stages.{i}.downsampling_layer.0",
        "stages/{i}/downsample/conv": "encoder.stages.{i}.downsampling_layer.1",
        "stages/{i}/blocks/{j}/depthwise": "encoder.stages.{i}.layers.{j}.dwconv",
        "stages/{i}/blocks/{j}/norm": "encoder.stages.{i}.layers.{j}.layernorm",
        "stages/{i}/blocks/{j}/expand": "encoder.stages.{i}.layers.{j}.pwconv1",
        "stages/{i}/blocks/{j}/project": "encoder.stages.{i}.layers.{j}.pwconv2",
        "stages/{i}/blocks/{j}/grn": "encoder.stages.{i}.layers.{j}.grn",
        "stages/{i}/blocks/{j}": "encoder.stages.{i}.layers.{j}",
        "norm": "layernorm",
        "head": "classifier",
    },
}
_ISOTROPIC = {
    "stem/conv": "stem",
    "stages/{i}/blocks/{j}/depthwise": "blocks.{k}.dwconv",
    "stages/{i}/blocks/{j}/norm": "blocks.{k}.norm",
    "stages/{i}/blocks/{j}/expand": "blocks.{k}.pwconv1",
    "stages/{i}/blocks/{j}/project": "blocks.{k}.pwconv2",
    "stages/{i}/blocks/{j}": "blocks.{k}",
    "norm": "norm",
    "head": "head",
}
LAYOUTS = tuple(_PLACES)

_LEAVES = {
    "facebookresearch": {"kernel": "weight", "scale": "weight", "layer_scale": "gamma"},
    "timm": {"kernel": "weight", "scale": "weight", "layer_scale": "gamma", "gamma": "weight", "beta": "bias"},
    "transformers": {
        "kernel": "weight",
        "scale": "weight",
        "layer_scale": "layer_scale_parameter",
        "gamma": "weight",
        "beta": "bias",
    },
}


def torch_name(path: str, layout: str, depths: tuple[int, ...], *, isotropic: bool = False) -> str:
    """The name in a layout of our parameter at a path, such as ``stages/2/blocks/0/expand/kernel``.

    Raises:
      ValueError: a parameter that the layout has no name for, of a variant that it does not know.
    """
    parent, _, leaf = path.rpartition("/")
    where = re.match(r"stages/(\d+)(?:/blocks/(\d+))?", parent)
    i, j = (int(group or 0) for group in where.groups()) if where else (0, 0)
    place = re.sub(r"blocks/\d+", "blocks/{j}", re.sub(r"stages/\d+", "stages/{i}", parent))
    places = _ISOTROPIC if isotropic and layout == "facebookresearch" else _PLACES[layout]
    if place not in places:
        raise ValueError(f"{layout} has no name for {path}")
    return f"{places[place].format(i=i, j=j, k=sum(depths[:i]) + j)}.{_LEAVES[layout].get(leaf, leaf)}"


def to_torch(path: str, array: np.ndarray, layout: str) -> np.ndarray:
    """Our parameter as a layout's array: [D,C,k,k] for [k,k,C,D], [D,C] for [C,D]."""
    if path.endswith("kernel"):
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    if layout != "timm" and re.search(r"grn/\w+$", path):
        return array.reshape(1, 1, 1, -1)
    return array


def from_torch(path: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A layout's array as our parameter of a shape, None where it has another shape."""
    if path.endswith("kernel"):
        if len(shape) == 2 and array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]  # timm's small models write their linear layers as 1x1 convolutions
        if array.ndim != len(shape):
            return None
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    elif array.size == math.prod(shape) and array.shape[-1:] == shape:
        array = array.reshape(shape)  # GRN's leading axes of one
    return array if array.shape == shape else None


def plain_names(names: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under their names without the prefixes of wrappers and of transformers' backbone."""
    return {re.sub(r"^(module\.)?(convnext(v2)?\.)?", "", name): array for name, array in names.items()}


def recognise_layout(names: Mapping[str, np.ndarray]) -> str | None:
    """Which layout plain names belong to, None for none of them."""
    if "embeddings.patch_embeddings.weight" in names:
        return "transformers"
    if "stem.0.weight" in names:
        return "timm"
    return "facebookresearch" if {"downsample_layers.0.0.weight", "stem.weight"} & names.keys() else None
