"""A PyTorch state dict becomes the parameters of an architecture."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from convnext_jax.errors import UserError
from convnext_jax.models.architectures import ARCHITECTURES, Architecture
from convnext_jax.models.create import create_model
from convnext_jax.models.parameters import abstract_model, flat_params, nested_params
from convnext_jax.models.convnext_torch_names import from_torch, plain_names, recognise_layout, to_torch, torch_name

IMPORTABLE = tuple(
    name
    for name, architecture in ARCHITECTURES.items()
    if architecture.block == "convnext" and not architecture.swin_mlp_stages and not architecture.bilstm2d
)


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was read from a state dict.

    Attributes:
      params: nested dictionaries of float32 arrays, the head included.
      num_classes: outputs of the head.
      layout: whose names they had.
    """

    params: dict[str, Any]
    num_classes: int
    layout: str


def import_state_dict(state: Mapping[str, np.ndarray], name: str) -> Imported:
    """Turns a PyTorch state dict into our parameters.

    Args:
      state: arrays by name, in the layout of facebookresearch, timm or transformers.
      name: which of `list_models()` it holds.

    Raises:
      UserError: no ConvNeXt, names that are missing or unexpected, shapes that are wrong, values that are not finite.
        All of them are listed, and the variant that it looks like where it is another one.
    """
    architecture = ARCHITECTURES[name]
    if name not in IMPORTABLE:
        raise UserError(f"there are no PyTorch checkpoints of {name}; those of {', '.join(IMPORTABLE)} can be read")
    state = plain_names(state)
    layout = recognise_layout(state)
    if layout is None:
        first = ", ".join(list(state)[:3]) or "nothing"
        raise UserError(f"these are no weights of a ConvNeXt in a known layout; they hold {first}, ...")
    num_classes = _num_classes(state, layout)
    shapes = _shapes(architecture, num_classes)
    arrays: dict[str, np.ndarray] = {}
    missing, wrong, expected = [], [], set()
    for path, shape in shapes.items():
        theirs = torch_name(path, layout, architecture.depths, isotropic=architecture.isotropic)
        expected.add(theirs)
        if theirs not in state:
            missing.append(theirs)
        elif (array := from_torch(path, np.asarray(state[theirs]), shape)) is None:
            wanted = to_torch(path, np.empty(shape), layout).shape
            wrong.append(f"{theirs} is {_size(state[theirs].shape)}, not {_size(wanted)}")
        else:
            arrays[path] = np.ascontiguousarray(array, np.float32)
    unexpected = sorted(state.keys() - expected)
    if missing or wrong or unexpected:
        raise UserError(_mismatch(name, state, layout, missing, unexpected, wrong))
    broken = [path for path, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(f"values that are not finite: {', '.join(broken)}")
    return Imported(nested_params(arrays), num_classes, layout)


def export_state_dict(params: Mapping[str, Any], architecture: Architecture, layout: str) -> dict[str, np.ndarray]:
    """Our parameters under a layout's names and in its shapes, the inverse of `import_state_dict`."""
    return {
        torch_name(path, layout, architecture.depths, isotropic=architecture.isotropic): np.ascontiguousarray(
            to_torch(path, np.asarray(array), layout)
        )
        for path, array in flat_params(params).items()
    }


def _shapes(architecture: Architecture, num_classes: int) -> dict[str, tuple[int, ...]]:
    _, params, _ = abstract_model(lambda: create_model(architecture, num_classes=num_classes))
    return {path: leaf.shape for path, leaf in flat_params(params).items()}


def _num_classes(state: Mapping[str, np.ndarray], layout: str) -> int:
    bias = state.get(torch_name("head/bias", layout, ()))
    if bias is None or bias.ndim != 1 or not bias.size:
        raise UserError(f"there is no classifier, {torch_name('head/bias', layout, ())}: a backbone alone, it seems")
    return bias.size


def _mismatch(
    name: str,
    state: Mapping[str, np.ndarray],
    layout: str,
    missing: list[str],
    unexpected: list[str],
    wrong: list[str],
) -> str:
    like = _looks_like(state, layout)
    if like and name not in like:
        return f"these weights are not {name}: by their shapes they look like {' or '.join(like)}, in {layout}'s names"
    lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    return f"these weights, in {layout}'s names, are not {name}: " + "; ".join(
        f"{kind}: {', '.join(names)}" for kind, names in lists if names
    )


def _looks_like(state: Mapping[str, np.ndarray], layout: str) -> list[str]:
    """Names of the architectures whose blocks have the vectors of a state dict, all of them and of their lengths."""
    blocks = sum(re.search(r"(dwconv|conv_dw)\.bias$", name) is not None for name in state)
    return [name for name in IMPORTABLE if _fits(ARCHITECTURES[name], state, layout, blocks)]


def _fits(architecture: Architecture, state: Mapping[str, np.ndarray], layout: str, blocks: int) -> bool:
    if sum(architecture.depths) != blocks:
        return False
    vectors = {
        torch_name(path, layout, architecture.depths, isotropic=architecture.isotropic): shape[0]
        for path, shape in _shapes(architecture, 1).items()
        if len(shape) == 1 and "blocks" in path
    }
    return all(name in state and state[name].size == size for name, size in vectors.items())


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
