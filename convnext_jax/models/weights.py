"""Weights with everything that is needed to use them: a folder with ``weights.safetensors`` and ``model.json``.

The arrays have this project's own names and layout, in a format that any tool reads and that runs no code.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from convnext_jax.errors import UserError, first_line, writing
from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import Tree, flat, nested
from convnext_jax.storage.arrays import read_arrays, write_arrays
from convnext_jax.storage.bounded import read_json
from convnext_jax.storage.checksums import damage, has_checksums, write_checksums
from convnext_jax.storage.files import new_folder, write_json

_WEIGHTS, _CARD = "weights.safetensors", "model.json"
_BATCH_STATS = "batch_stats/"  # before the paths of the running statistics
_REMEDY = (
    "make it with python -m convnext_jax.tools.export --workdir WORKDIR --format convnext_jax --output DIR, with"
    " tools.import_torch or with tools.soup"
)
UNVERIFIED = "unverified: there are no checksums to compare its files with"


@dataclasses.dataclass(frozen=True)
class ModelFolder:
    """Weights, and what is needed to build their network and to feed it.

    Attributes:
      params: nested dictionaries of float32 arrays.
      batch_stats: the running statistics, of the same kind, empty if there are none.
      model: the name that the network's architecture started from.
      architecture: all fields of the architecture. Empty in folders that version 0.1 wrote, which kept the stem alone.
      class_names: the name of each class, in the order of the logits; empty for a backbone alone.
      mean: channel means that images are normalized with, on the scale [0, 1].
      std: channel deviations that images are normalized with.
      source: where the weights came from, in words.
      image_size: height and width in pixels of the pictures of its training; None if that is not known.
      network_size: side in pixels to which the network enlarges or reduces them; None if it takes them as they are.
      verified: whether the files that it was read from had the checksums that were recorded when they were written.
        Folders of earlier versions have none.
    """

    params: Tree
    batch_stats: Tree
    model: str
    architecture: Mapping[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    image_size: tuple[int, int] | None = None
    network_size: int | None = None
    verified: bool = dataclasses.field(default=True, compare=False)

    @property
    def digest(self) -> str:
        """The SHA-256 of all arrays and their names, the same for the same weights however they were written."""
        digest = hashlib.sha256()
        for tree in (self.params, self.batch_stats):
            for path, array in sorted(flat(tree).items()):
                digest.update(f"{path} {array.dtype} {array.shape} ".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    def write(
        self, directory: Path, *, beside: Mapping[str, Mapping[str, Any]] | None = None, dtype: str = "float32"
    ) -> None:
        """Writes the folder, whole or not at all, with the checksums of its files.

        Args:
          directory: the folder to make.
          beside: the content of other JSON files in it, by name.
          dtype: what the parameters are rounded to in the file, "float32" or "bfloat16", which is half as large. They
            are read as float32. The running statistics stay float32.

        Raises:
          UserError: it exists already, or cannot be written.
        """
        if directory.exists():
            raise UserError(f"{directory} exists already; choose another --output")
        with writing(directory, "--output"), new_folder(directory) as folder:
            self.write_into(folder, beside=beside, dtype=dtype)

    def write_into(
        self, folder: Path, *, beside: Mapping[str, Mapping[str, Any]] | None = None, dtype: str = "float32"
    ) -> None:
        """Writes the files of the folder into one that exists; see `write`."""
        params = {path: np.asarray(leaf, jnp.dtype(dtype)) for path, leaf in flat(self.params).items()}
        arrays = params | {_BATCH_STATS + path: leaf for path, leaf in flat(self.batch_stats).items()}
        card = {name: value for name in _CARD_FIELDS if (value := getattr(self, name)) is not None}
        write_arrays(folder / _WEIGHTS, arrays)
        write_json(folder / _CARD, {"format": 2, **card})
        for name, content in (beside or {}).items():
            write_json(folder / name, content)
        write_checksums(folder)

    @classmethod
    def read(cls, directory: Path) -> "ModelFolder":
        """Reads the folder, and verifies it if it has checksums.

        Raises:
          UserError: it is no such folder, or it is damaged.
        """
        if not directory.exists():
            raise UserError(f"{directory} holds no weights to start from (there is no such folder); {_REMEDY}")
        if (directory / "checkpoints").is_dir():
            raise UserError(
                f"{directory} is a workdir, not a folder of weights; name the folder that"
                f" python -m convnext_jax.tools.export --workdir {directory} --format convnext_jax --output DIR makes"
            )
        if what := damage(directory):
            raise UserError(f"the weights in {directory} are damaged ({what}); {_REMEDY}")
        arrays = read_arrays(directory / _WEIGHTS) if (directory / _WEIGHTS).is_file() else {}
        try:
            card = read_json(directory / _CARD)
            if card.pop("format", 1) == 1:
                card = _from_format_1(card, arrays)
            card = {name: _CARD_FIELDS[name](value) for name, value in card.items()}
            if not 1 <= len(card["mean"]) == len(card["std"]):
                raise ValueError("mean and std are not of the same channels")
            if strange := [path for path, array in arrays.items() if array.dtype.name not in ("float32", "bfloat16")]:
                raise ValueError(f"{strange[0]} is {arrays[strange[0]].dtype}, not float32 or bfloat16")
            arrays = {path: array.astype(np.float32, copy=False) for path, array in arrays.items()}
            batch_stats = {path.removeprefix(_BATCH_STATS): a for path, a in arrays.items() if _is_batch_stat(path)}
            params = {path: array for path, array in arrays.items() if not _is_batch_stat(path)}
            return cls(nested(params), nested(batch_stats), **card, verified=has_checksums(directory))
        except UserError:
            raise
        except Exception as error:  # whatever JSON may hold in the place of what was written
            raise UserError(f"{directory} holds no weights to start from ({first_line(error)}); {_REMEDY}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.50} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, [*value]))


def _numbers(value: Any) -> tuple[float, ...]:
    if not all(type(number) in (int, float) and math.isfinite(number) for number in value):
        raise ValueError(f"{value!r:.50} are no numbers")
    return tuple(value)


def _pixels(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r:.50} is no number of pixels")
    return value


def _height_and_width(value: Any) -> tuple[int, int]:
    height, width = map(_pixels, value)
    return height, width


def _architecture(value: Any) -> dict[str, Any]:
    return {name: tuple(field) if isinstance(field, list) else field for name, field in value.items()}


# What model.json holds, and how each is read.
_CARD_FIELDS = {
    "model": _text,
    "architecture": _architecture,
    "class_names": _texts,
    "mean": _numbers,
    "std": _numbers,
    "source": _text,
    "image_size": _height_and_width,
    "network_size": _pixels,
}


def _is_batch_stat(path: str) -> bool:
    return path.startswith(_BATCH_STATS)


def _from_format_1(card: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Version 0.1 kept the model's name, its stem and the number of classes, and knew ConvNeXt alone."""
    channels = arrays["stem/conv/kernel"].shape[2]
    return {
        "model": card["model"],
        "architecture": {"stem": card["stem"]},
        "class_names": tuple(map(str, range(card["num_classes"]))),
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        "source": card["source"],
    }


def start_from(
    folder: ModelFolder, architecture: Architecture, params: Tree, batch_stats: Tree
) -> tuple[Tree, Tree, list[str]]:
    """Puts given weights in the places of freshly drawn ones.

    The head stays fresh if its number of classes differs, and with a backbone alone all that comes after the stages. A
    weight of another size is resized if the architecture can.
    Of a segmentation model the backbone takes the weights, and everything else stays fresh.

    Args:
      folder: the weights.
      architecture: that of the model to start.
      params: the model's parameters, for their shapes and for what is not taken over.
      batch_stats: the model's running statistics.

    Returns:
      The parameters, the running statistics, and a sentence for each thing that was not taken over as it is.

    Raises:
      UserError: the weights are of another network. All names that are missing, left over or of another shape are
        listed.
    """
    if "backbone" in params:
        return _start_backbone_from(folder, architecture, params, batch_stats)
    fresh, given, notes = flat(params), flat(folder.params), []
    if not folder.verified:
        notes.append(UNVERIFIED)
    kernel = fresh.get("head/kernel")  # a backbone may have no head
    if not folder.class_names:
        notes.append("the weights are of a backbone alone, and the classifier is fresh")
        given = {path: fresh[path] for path in fresh if not is_of_backbone(path)} | given
    elif kernel is not None and kernel.shape[-1] != len(folder.class_names):
        notes.append(f"a fresh head of {kernel.shape[-1]} classes replaces the one of {len(folder.class_names)}")
        given |= {path: fresh[path] for path in fresh if _is_of_a_head(path)}
    for path, array in given.items():
        if path not in fresh or array.shape == fresh[path].shape:
            continue
        adapted = architecture.adapt_weight(path, array, fresh[path].shape)
        if adapted is not None:
            before, after = ("x".join(map(str, each.shape[:-2] or each.shape[:1])) for each in (array, fresh[path]))
            notes.append(f"{path} is resized from {before} to {after}")
            given[path] = adapted
    problems = _differences(fresh, given) + _differences(flat(batch_stats), flat(folder.batch_stats))
    if problems:
        raise UserError(f"the weights, of {folder.model}, do not fit this model: {'; '.join(problems)}")
    return nested({path: given[path] for path in fresh}), folder.batch_stats, notes


def _start_backbone_from(
    folder: ModelFolder, architecture: Architecture, params: Tree, batch_stats: Tree
) -> tuple[Tree, Tree, list[str]]:
    """Puts given weights in the places of those of a segmentation model's backbone; see `start_from`."""
    own, own_stats = params["backbone"], batch_stats.get("backbone", {})
    rest = "the norms and the head for pixels are fresh"
    if "head" not in own:  # the backbone has no classifier, and none of the layers before that
        given, given_stats = (
            {name: tree for name, tree in trees.items() if name in own} for trees in (folder.params, folder.batch_stats)
        )
        folder = dataclasses.replace(folder, params=given, batch_stats=given_stats)
    taken, taken_stats, notes = start_from(folder, architecture, own, own_stats)
    stats = batch_stats | ({"backbone": taken_stats} if taken_stats else {})
    return params | {"backbone": taken}, stats, [*notes, rest]


def is_of_backbone(path: str) -> bool:
    """Returns whether a parameter is of the stem or of a stage, and so of a backbone without its classifier."""
    return path.startswith(("stem/", "stages/"))


def _is_of_a_head(path: str) -> bool:
    """Returns whether a parameter belongs to a layer of one output a class; auxiliary heads have theirs too."""
    return f"/{path}".rpartition("/")[0].endswith("/head")


def _differences(fresh: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    return [
        *(f"{path} is missing" for path in fresh if path not in given),
        *(f"{path} is left over" for path in given if path not in fresh),
        *(
            f"{path} is {list(given[path].shape)}, not {list(array.shape)}"
            for path, array in fresh.items()
            if path in given and given[path].shape != array.shape
        ),
    ]
