"""The names of ConvNeXt's parameters in PyTorch checkpoints.

Four layouts are in use: that of the reference (facebookresearch/ConvNeXt and ConvNeXt-V2), timm's, that of Hugging Face
transformers, and torchvision's, which has V1 alone.
"""

import re

# Where our parameters are and where theirs are; {i} is a stage, {j} a block of it, {k} a block of the whole network.
# torchvision counts the stem, the downsampling layers and the stages in one row: {d} is the number of a stage's
# downsampling layer, {s} that of the stage.
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
    "torchvision": {
        "stem/conv": "features.0.0",
        "stem/norm": "features.0.1",
        "stages/{i}/downsample/norm": "features.{d}.0",
        "stages/{i}/downsample/conv": "features.{d}.1",
        "stages/{i}/blocks/{j}/depthwise": "features.{s}.{j}.block.0",
        "stages/{i}/blocks/{j}/norm": "features.{s}.{j}.block.2",
        "stages/{i}/blocks/{j}/expand": "features.{s}.{j}.block.3",
        "stages/{i}/blocks/{j}/project": "features.{s}.{j}.block.5",
        "stages/{i}/blocks/{j}": "features.{s}.{j}",
        "norm": "classifier.0",
        "head": "classifier.2",
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
    "torchvision": {"kernel": "weight", "scale": "weight"},
}


def torch_name(path: str, layout: str, depths: tuple[int, ...], *, isotropic: bool = False) -> str:
    """Returns the name that a parameter has in a layout.

    >>> torch_name("stages/2/blocks/0/expand/kernel", "timm", (3, 3, 9, 3))
    'stages.2.blocks.0.mlp.fc1.weight'

    Args:
      path: the path of our parameter.
      layout: one of `LAYOUTS`.
      depths: blocks of each stage.
      isotropic: whether the network is isotropic.

    Raises:
      ValueError: the layout has no name for the parameter, which belongs to a variant.
    """
    parent, _, leaf = path.rpartition("/")
    where = re.match(r"stages/(\d+)(?:/blocks/(\d+))?", parent)
    i, j = (int(group or 0) for group in where.groups()) if where else (0, 0)
    place = re.sub(r"blocks/\d+", "blocks/{j}", re.sub(r"stages/\d+", "stages/{i}", parent))
    places = _ISOTROPIC if isotropic and layout == "facebookresearch" else _PLACES[layout]
    if place not in places:
        raise ValueError(f"{layout} has no name for {path}")
    numbered = places[place].format(i=i, j=j, k=sum(depths[:i]) + j, d=2 * i, s=2 * i + 1)
    return f"{numbered}.{_LEAVES[layout].get(leaf, leaf)}"
