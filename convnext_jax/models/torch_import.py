"""The parameters of PyTorch checkpoints, both ways, without torch."""

import dataclasses
import functools
import re
from collections.abc import Mapping

import numpy as np

from convnext_jax.errors import UserError
from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import AbstractModel, Tree, abstract_model, flat, nested
from convnext_jax.models.registry import create_model, named_architecture
from convnext_jax.models.table import MODELS
from convnext_jax.models.weights import is_of_backbone

# What PyTorch counts and no network needs.
_IGNORED = re.compile(r"(^|\.)num_batches_tracked$")
# Prefixes of wrappers, and of the backbones of transformers.
_PREFIXES = re.compile(r"^(module\.)?(convnext(v2)?\.)?")


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was read from a state dict.

    Attributes:
      params: nested dictionaries of float32 arrays. Of a backbone alone, without those after the last stage that the
        state dict has not.
      batch_stats: the running statistics, of the same kind, empty if there are none.
      num_classes: outputs of the head, 0 of a backbone alone.
      in_channels: channels of the images.
      layout: whose names the arrays had.
    """

    params: Tree
    batch_stats: Tree
    num_classes: int
    in_channels: int
    layout: str


def importable_models() -> list[str]:
    """Returns the names of the models that have PyTorch checkpoints."""
    return [name for name, architecture in MODELS.items() if architecture.torch_layouts]


def import_state_dict(state: Mapping[str, np.ndarray], name: str) -> Imported:
    """Turns a PyTorch state dict into our parameters and running statistics.

    Args:
      state: arrays by name, in one of the layouts of the model's architecture.
      name: which of `list_models()` it holds.

    Raises:
      UserError: no weights of such a network, names that are missing or unexpected, shapes that are wrong, values that
        are not finite. All of them are listed, and the network that the weights look like if it is another one.
    """
    architecture = named_architecture(name)
    if not architecture.torch_layouts:
        known = ", ".join(importable_models())
        raise UserError(f"there are no PyTorch checkpoints of {name}; those of {known} can be read")
    constants = architecture.torch_constants
    state = {
        _PREFIXES.sub("", key): array
        for key, array in state.items()
        if not _IGNORED.search(key) and not key.endswith(constants)
    }
    layout = _recognize_layout(state, architecture)
    if layout is None:
        first = ", ".join(list(state)[:3]) or "nothing"
        raise UserError(f"these are no weights of {name} in a known layout; they hold {first}, ...")
    num_classes = _num_classes(state, architecture, layout)
    in_channels = np.shape(state.get(architecture.torch_name("stem/conv/kernel", layout), np.empty((1, 3))))[1]
    like = abstract_model(lambda: create_model(architecture, num_classes=max(num_classes, 1), in_channels=in_channels))
    wanted = {path: leaf.shape for path, leaf in _leaves(like).items()}
    if not num_classes:  # a backbone alone may lack any layer of the classifier
        wanted = {
            path: shape
            for path, shape in wanted.items()
            if is_of_backbone(path) or architecture.torch_name(path, layout) in state
        }
    arrays: dict[str, np.ndarray] = {}
    missing, wrong, expected = [], [], set()
    flattened = architecture.flattened_channels
    for path, shape in wanted.items():
        theirs = architecture.torch_name(path, layout)
        expected.add(theirs)
        if theirs not in state:
            missing.append(theirs)
        elif (array := from_torch(path, np.asarray(state[theirs]), shape, flattened(path))) is None:
            their_shape = architecture.to_torch(path, np.empty(shape), layout).shape
            wrong.append(f"{theirs} is {_size(state[theirs].shape)}, not {_size(their_shape)}")
        else:
            arrays[path] = np.ascontiguousarray(array, np.float32)
    unexpected = sorted(state.keys() - expected)
    if missing or wrong or unexpected:
        raise UserError(_mismatch(name, state, layout, missing, unexpected, wrong))
    broken = [path for path, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(f"values that are not finite: {', '.join(broken)}")
    params, batch_stats = (
        {path: arrays[path] for path in flat(tree) if path in arrays} for tree in (like.params, like.batch_stats)
    )
    return Imported(nested(params), nested(batch_stats), num_classes, in_channels, layout)


def export_state_dict(
    architecture: Architecture, layout: str, params: Tree, batch_stats: Tree | None = None
) -> dict[str, np.ndarray]:
    """Returns parameters and running statistics under a layout's names and in its shapes.

    The inverse of `import_state_dict`.
    """
    return {
        architecture.torch_name(path, layout): np.ascontiguousarray(
            architecture.to_torch(path, np.asarray(array), layout)
        )
        for path, array in (flat(params) | flat(batch_stats or {})).items()
    }


def from_torch(
    path: str, array: np.ndarray, shape: tuple[int, ...], flattened_channels: int | None = None
) -> np.ndarray | None:
    """Returns a PyTorch array as our parameter, or None if it has another shape.

    Args:
      path: the path of our parameter.
      array: the PyTorch array.
      shape: that of our parameter.
      flattened_channels: see `Architecture.flattened_channels`.
    """
    if flattened_channels:
        if array.shape != shape[::-1]:
            return None
        rows = array.reshape(len(array), flattened_channels, -1)  # [D,C,HW]
        return rows.transpose(2, 1, 0).reshape(shape)
    if path.endswith("kernel"):
        if len(shape) == 2 and array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array[:, :, 0, 0]  # timm's small models write their linear layers as 1x1 convolutions
        if array.ndim != len(shape):
            return None
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
    elif [size for size in array.shape if size != 1] == [size for size in shape if size != 1]:
        array = array.reshape(shape)  # without axes of size one
    return array if array.shape == shape else None


def _leaves(model: AbstractModel) -> dict[str, np.ndarray]:
    return flat(model.params) | flat(model.batch_stats)


@functools.cache
def _leaves_of_one_class(architecture: Architecture) -> dict[str, np.ndarray]:
    return _leaves(abstract_model(lambda: create_model(architecture, num_classes=1)))


def _recognize_layout(state: Mapping[str, np.ndarray], architecture: Architecture) -> str | None:
    """Returns the layout that most names belong to, None if no name belongs to any."""
    paths = list(_leaves_of_one_class(architecture))
    counts = {
        layout: sum(architecture.torch_name(path, layout) in state for path in paths)
        for layout in architecture.torch_layouts
    }
    best = max(counts, key=lambda layout: counts[layout])
    return best if counts[best] else None


def _num_classes(state: Mapping[str, np.ndarray], architecture: Architecture, layout: str) -> int:
    """Returns the outputs of the head, 0 if there is none."""
    name = architecture.torch_name("head/bias", layout)
    bias = state.get(name, np.empty(0))
    if bias.ndim != 1 or (name in state and not bias.size):
        raise UserError(f"{name}, of the classifier, is {_size(bias.shape)}, not one number a class")
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
    """Returns the models that have the names of a state dict, and whose blocks have vectors of the same lengths."""
    found = []
    for name in importable_models():
        architecture = MODELS[name]
        if layout not in architecture.torch_layouts:
            continue
        leaves = _leaves_of_one_class(architecture)
        names = {path: architecture.torch_name(path, layout) for path in leaves}
        vectors = [path for path, leaf in leaves.items() if "blocks" in path and len(leaf.shape) == 1]
        if set(names.values()) == state.keys() and all(
            state[names[path]].size == leaves[path].size for path in vectors
        ):
            found.append(name)
    return found


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"
