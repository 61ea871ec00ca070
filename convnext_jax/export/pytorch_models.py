"""How the libraries of PyTorch build a network of this project: their names, their settings, and Python that loads it.

Each library builds what its own models need. A network whose stem they do not have is built by them with another one,
which two lines of Python replace. Anything else that they cannot compute is refused.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from convnext_jax.errors import UserError
from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.models.convnext import STEMS as CONVNEXT_STEMS
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.interface import Architecture
from convnext_jax.models.resnet import STEMS as RESNET_STEMS
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.swin import SwinArchitecture
from convnext_jax.models.table import MODELS
from convnext_jax.models.vit import ViTArchitecture

WEIGHTS_FILE = "model.safetensors"


@dataclasses.dataclass(frozen=True)
class PyTorchModel:
    """How a library builds a network.

    Attributes:
      layout: whose names its weights have, one of `Architecture.torch_layouts`.
      code: Python that builds ``model`` in the folder of the weights and loads them; empty if the library is not known.
      files: content of the JSON files that the library reads beside the weights, by name.
      prefix: what stands before the names of all weights but the classifier's.
    """

    layout: str
    code: str = ""
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    prefix: str = ""


def formats_of(architecture: Architecture) -> tuple[str, ...]:
    """Returns the libraries and layouts that a network can be exported to, whatever its sizes."""
    layouts = architecture.torch_layouts
    has_timm = isinstance(architecture, ResNetArchitecture) and "torchvision" in layouts  # the same names
    return (*layouts, "timm") if has_timm else layouts


def pytorch_model(network: OpenedClassifier, library: str) -> PyTorchModel:
    """Returns how a library builds a network.

    Args:
      network: the network.
      library: one of `formats_of` its architecture.

    Raises:
      UserError: the library has no such network.
    """
    architecture = network.architecture
    known = formats_of(architecture)
    if library not in known:
        others = ", ".join((*known, "onnx", "stablehlo", "convnext_jax"))
        raise UserError(f"--format {library} has no names for the weights of {network.model}; take one of {others}")
    by_family: Mapping[type[Architecture], Mapping[str, Any]] = {
        ConvNeXtArchitecture: _CONVNEXTS,
        ResNetArchitecture: {"timm": _timm_resnet, "torchvision": _torchvision_resnet},
        ViTArchitecture: {"timm": _timm_vit},
        SwinArchitecture: {"timm": _timm_swin, "torchvision": _torchvision_swin},
    }
    make = by_family.get(type(architecture), {}).get(library)
    return make(network, architecture) if make else PyTorchModel(library)


# --- ConvNeXt


def _timm_convnext(network: OpenedClassifier, architecture: ConvNeXtArchitecture) -> PyTorchModel:
    # After patches of 2 pixels timm halves the map once more, before the first stage.
    stem = _stem_lines(network, architecture, "model.stem[0]", lambda patch_size: patch_size != 2)
    arguments = {
        "depths": architecture.depths,
        "dims": architecture.dims,
        "kernel_sizes": architecture.kernel_size,
        "patch_size": 4 if stem else _patch_size(architecture),
        "ls_init_value": architecture.layer_scale or None,
        "use_grn": architecture.grn,
        "conv_mlp": False,
        "act_layer": architecture.activation,
    }
    return _timm(network, network.model, arguments, stem, "stem.0", "head.fc")


def _transformers_convnext(network: OpenedClassifier, architecture: ConvNeXtArchitecture) -> PyTorchModel:
    version = "convnextv2" if architecture.grn else "convnext"
    class_name = f"ConvNext{'V2' if architecture.grn else ''}ForImageClassification"
    names = dict(enumerate(network.classes))
    config = {
        "architectures": [class_name],
        "model_type": version,
        "num_channels": network.preprocess.shape[2],
        "patch_size": _patch_size(architecture),
        "num_stages": len(architecture.depths),
        "hidden_sizes": architecture.dims,
        "depths": architecture.depths,
        "hidden_act": architecture.activation,
        "layer_norm_eps": 1e-6,
        "image_size": _size(network)[0],
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
        **({} if architecture.grn else {"layer_scale_init_value": architecture.layer_scale}),
    }
    stem = _stem_lines(network, architecture, f"model.{version}.embeddings.patch_embeddings", lambda patch_size: True)
    if stem:
        code = [
            "import torch",
            "from safetensors.torch import load_file",
            "from transformers import AutoConfig, AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained("."))',
            *stem,
            f'model.load_state_dict(load_file("{WEIGHTS_FILE}"))',
        ]
    else:
        code = [
            "from transformers import AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_pretrained(".")',
        ]
    files = {"config.json": config, "preprocessor_config.json": _transformers_preprocessing(network)}
    return PyTorchModel("transformers", _ready(code), files, prefix=f"{version}.")


def _torchvision_convnext(network: OpenedClassifier, architecture: ConvNeXtArchitecture) -> PyTorchModel:
    dims = [*architecture.dims, None]
    blocks = [
        f"CNBlockConfig({inputs}, {outputs}, {depth})"
        for inputs, outputs, depth in zip(dims, dims[1:], architecture.depths, strict=False)
    ]
    channels = network.preprocess.shape[2]
    stem = _stem_lines(
        network, architecture, "model.features[0][0]", lambda patch_size: (channels, patch_size) == (3, 4)
    )
    return _loaded(
        "torchvision",
        ["from torchvision.models.convnext import CNBlockConfig, ConvNeXt"],
        f"ConvNeXt([{', '.join(blocks)}], num_classes={len(network.classes)})",
        stem,
    )


def _facebookresearch_convnext(network: OpenedClassifier, architecture: ConvNeXtArchitecture) -> PyTorchModel:
    if architecture.isotropic:
        stem = _stem_lines(network, architecture, "model.stem", lambda patch_size: patch_size == 16)
        sizes = f"depth={sum(architecture.depths)}, dim={architecture.dims[0]}"
        module, made = "convnext_isotropic", "ConvNeXtIsotropic"
    else:
        stem = _stem_lines(network, architecture, "model.downsample_layers[0][0]", lambda patch_size: patch_size == 4)
        sizes = f"depths={list(architecture.depths)}, dims={list(architecture.dims)}"
        module, made = ("convnextv2", "ConvNeXtV2") if architecture.grn else ("convnext", "ConvNeXt")
    scale = "" if architecture.grn else f", layer_scale_init_value={architecture.layer_scale}"
    return _loaded(
        "facebookresearch",
        [f"from models.{module} import {made}  # of facebookresearch/ConvNeXt{'-V2' if architecture.grn else ''}"],
        f"{made}(in_chans={network.preprocess.shape[2]}, num_classes={len(network.classes)}, {sizes}{scale})",
        stem,
    )


def _checked(
    library: str, make: Callable[[OpenedClassifier, ConvNeXtArchitecture], PyTorchModel]
) -> Callable[[OpenedClassifier, ConvNeXtArchitecture], PyTorchModel]:
    def checked(network: OpenedClassifier, architecture: ConvNeXtArchitecture) -> PyTorchModel:
        needed = {"convolution": "depthwise", "norm": "layer", "expansion": 4}
        if library != "timm":
            needed["kernel_size"] = 7
        if library in ("torchvision", "facebookresearch"):
            needed["activation"] = "gelu"
        if architecture.grn and library != "timm":
            needed["layer_scale"] = 0.0
        for field, value in needed.items():
            if (ours := getattr(architecture, field)) != value:
                raise _no_such(library, f"model.{field}={ours}", f"{field}={value} alone")
        if library == "torchvision" and not architecture.layer_scale:
            raise _no_such(library, "model.layer_scale=0", "a layer scale in every block")
        if len(CONVNEXT_STEMS[architecture.stem]) > 1:
            raise _no_such(library, f"model.stem={architecture.stem}", "a stem of one convolution")
        return make(network, architecture)

    return checked


_CONVNEXTS: Mapping[str, Callable[[OpenedClassifier, Any], PyTorchModel]] = {
    library: _checked(library, make)
    for library, make in {
        "timm": _timm_convnext,
        "transformers": _transformers_convnext,
        "torchvision": _torchvision_convnext,
        "facebookresearch": _facebookresearch_convnext,
    }.items()
}


def _patch_size(architecture: ConvNeXtArchitecture) -> int:
    (window,) = CONVNEXT_STEMS[architecture.stem]
    return window.stride


def _stem_lines(
    network: OpenedClassifier, architecture: ConvNeXtArchitecture, place: str, is_built: Callable[[int], bool]
) -> list[str]:
    """Returns the lines that put the network's stem in the place of the library's, none if the library builds it.

    Args:
      network: the network.
      architecture: that of the network.
      place: the convolution, in Python.
      is_built: whether the library builds a stem of patches of a size.
    """
    (window,) = CONVNEXT_STEMS[architecture.stem]
    if (window.kernel, window.padding) == (window.stride, 0) and is_built(window.kernel):
        return []
    channels, dim = network.preprocess.shape[2], architecture.dims[0]
    return _conv_lines(place, channels, dim, window.kernel, window.padding, stride=window.stride)


# --- the others


def _timm_resnet(network: OpenedClassifier, architecture: ResNetArchitecture) -> PyTorchModel:
    _check_resnet("timm", network, architecture)
    arguments: dict[str, Any] = {"layers": architecture.depths}
    named = MODELS.get(network.model)
    if _is_grouped_or_wide(architecture) or (isinstance(named, ResNetArchitecture) and _is_grouped_or_wide(named)):
        arguments |= {"cardinality": architecture.groups, "base_width": architecture.width_per_group}
    name = network.model.removesuffix("_small_stem")
    if not isinstance(named, ResNetArchitecture) or named.block != architecture.block:
        name = {"basic": "resnet18", "bottleneck": "resnet50"}[architecture.block]
    made = _timm(network, name, arguments, _resnet_stem(network, architecture), "conv1", "fc")
    return dataclasses.replace(made, layout="torchvision")


def _torchvision_resnet(network: OpenedClassifier, architecture: ResNetArchitecture) -> PyTorchModel:
    _check_resnet("torchvision", network, architecture)
    block = "BasicBlock" if architecture.block == "basic" else "Bottleneck"
    groups = ""
    if _is_grouped_or_wide(architecture):
        groups = f", groups={architecture.groups}, width_per_group={architecture.width_per_group}"
    depths, stem = list(architecture.depths), _resnet_stem(network, architecture)
    if not stem and network.preprocess.shape[2] != 3:
        stem = _conv_lines("model.conv1", network.preprocess.shape[2], architecture.width, 7, 3, stride=2, bias=False)
    return _loaded(
        "torchvision",
        [f"from torchvision.models.resnet import {block}, ResNet"],
        f"ResNet({block}, {depths}, num_classes={len(network.classes)}{groups})",
        stem,
    )


def _is_grouped_or_wide(architecture: ResNetArchitecture) -> bool:
    return (architecture.groups, architecture.width_per_group) != (1, 64)


def _check_resnet(library: str, network: OpenedClassifier, architecture: ResNetArchitecture) -> None:
    if len(architecture.depths) != 4 or architecture.width != 64:
        raise _no_such(library, f"{network.model} with model.width={architecture.width}", "four stages, width=64")


def _resnet_stem(network: OpenedClassifier, architecture: ResNetArchitecture) -> list[str]:
    if architecture.stem == "conv7x7_s2_pool":
        return []
    channels, (kernel, stride, _) = network.preprocess.shape[2], RESNET_STEMS[architecture.stem]
    conv = _conv_lines("model.conv1", channels, architecture.width, kernel, kernel // 2, stride=stride, bias=False)
    return [*conv, "model.maxpool = torch.nn.Identity()"]


def _timm_vit(network: OpenedClassifier, architecture: ViTArchitecture) -> PyTorchModel:
    size = network.model.removeprefix("vit_").partition("_")[0]
    arguments = {
        "img_size": architecture.image_size,
        "patch_size": architecture.patch_size,
        "embed_dim": architecture.dim,
        "depth": architecture.depth,
        "num_heads": architecture.heads,
        "mlp_ratio": architecture.expansion,
    }
    if _size(network) != (architecture.image_size,) * 2:
        raise UserError(
            f"--format timm: the network was made for {architecture.image_size} px and is given"
            f" {'x'.join(map(str, _size(network)))}; timm has one size; take onnx or stablehlo"
        )
    return _timm(network, f"vit_{size}_patch16_224", arguments, [], "patch_embed.proj", "head")


def _timm_swin(network: OpenedClassifier, architecture: SwinArchitecture) -> PyTorchModel:
    smallest = min(_size(network)) // (architecture.patch_size * 2 ** (len(architecture.depths) - 1))
    if smallest < architecture.window:  # it makes the windows smaller, where ours and torchvision's fill the map up
        maps = f"maps of {smallest} pixels a side and model.window={architecture.window}"
        raise _no_such("timm", maps, "windows no larger than a map")
    arguments = {
        "img_size": _size(network),
        "patch_size": architecture.patch_size,
        "window_size": architecture.window,
        "embed_dim": architecture.dim,
        "depths": architecture.depths,
        "num_heads": architecture.heads,
        "mlp_ratio": architecture.expansion,
    }
    return _timm(network, "swin_tiny_patch4_window7_224", arguments, [], "patch_embed.proj", "head.fc")


def _torchvision_swin(network: OpenedClassifier, architecture: SwinArchitecture) -> PyTorchModel:
    patch, channels = architecture.patch_size, network.preprocess.shape[2]
    stem = [] if channels == 3 else _conv_lines("model.features[0][0]", channels, architecture.dim, patch, 0)
    sizes = f"[{patch}, {patch}], {architecture.dim}, {list(architecture.depths)}, {list(architecture.heads)},"
    sizes += f" [{architecture.window}, {architecture.window}], mlp_ratio={architecture.expansion}"
    return _loaded(
        "torchvision",
        ["from torchvision.models.swin_transformer import SwinTransformer"],
        f"SwinTransformer({sizes}, num_classes={len(network.classes)})",
        stem,
        strict=False,
    )


# --- what they have in common


def _timm(
    network: OpenedClassifier,
    name: str,
    arguments: Mapping[str, Any],
    stem: list[str],
    first_conv: str,
    classifier: str,
) -> PyTorchModel:
    preprocess, classes = network.preprocess, len(network.classes)
    arguments = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
    config = {
        "architecture": name,
        "num_classes": classes,
        "label_names": network.classes,
        "model_args": {"in_chans": preprocess.shape[2], **arguments},
        "pretrained_cfg": {
            "tag": "",
            "input_size": [preprocess.shape[2], *_size(network)],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": preprocess.mean,
            "std": preprocess.std,
            "first_conv": first_conv,
            "classifier": classifier,
            "custom_load": False,
        },
    }
    if stem:
        # Without config.json, since timm would build the model with another stem.
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        made = f'timm.create_model("{name}", num_classes={classes}, in_chans={preprocess.shape[2]}, {given})'
        return _loaded("timm", ["import timm"], made, stem)
    code = ["import timm", "", 'model = timm.create_model("local-dir:.", pretrained=True)']
    return PyTorchModel("timm", _ready(code), {"config.json": config})


def _loaded(layout: str, imports: list[str], made: str, stem: list[str], *, strict: bool = True) -> PyTorchModel:
    """Returns a model that Python builds, with the lines that replace its stem.

    ``strict`` is False for a model that keeps constants among its weights, which it computes itself.
    """
    torch = ["import torch"] if stem else []
    code = [
        *torch,
        *imports,
        "from safetensors.torch import load_file",
        "",
        f"model = {made}",
        *stem,
        f'model.load_state_dict(load_file("{WEIGHTS_FILE}"){"" if strict else ", strict=False"})',
    ]
    return PyTorchModel(layout, _ready(code))


def _ready(code: list[str]) -> str:
    return "\n".join([*code, "model.eval()"])


def _conv_lines(
    place: str, inputs: int, outputs: int, kernel: int, padding: int, *, stride: int | None = None, bias: bool = True
) -> list[str]:
    options = f", stride={stride or kernel}" + (f", padding={padding}" if padding else "")
    return [f"{place} = torch.nn.Conv2d({inputs}, {outputs}, {kernel}{options}{'' if bias else ', bias=False'})"]


def _transformers_preprocessing(network: OpenedClassifier) -> dict[str, Any]:
    preprocess = network.preprocess
    return {
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": _size(network)[0]},
        "crop_pct": 1.0,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": preprocess.mean,
        "image_std": preprocess.std,
    }


def _size(network: OpenedClassifier) -> tuple[int, int]:
    """Returns height and width of what the network is given, in pixels."""
    side = network.forward.image_size
    return network.preprocess.shape[:2] if side is None else (side, side)


def _no_such(library: str, what: str, has: str) -> UserError:
    return UserError(f"--format {library}: {what}, and its models have {has}; take onnx, stablehlo or convnext_jax")
