"""What a prepared data set declares in ``features.json``: the names of its classes and the channels of its images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convnext_jax.data.decode import MODES
from convnext_jax.data.prepared import damaged
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import MOST_JSON_BYTES, read_bounded, read_json

# TFDS imports the modules that the file names. Those below are its own.
_MODULES = "tensorflow_datasets."
_MOST_CLASSES = 1_000_000  # ImageNet-21k has 21,843


def read_features(folder: Path) -> tuple[tuple[str, ...], int]:
    """Returns the class names and the number of channels of a prepared data set.

    Args:
      folder: a folder that `convnext_jax.data.prepared.find_prepared` returned.

    Raises:
      UserError: the file is damaged, the data are not for image classification, or they need code that is not TFDS's.
    """
    try:
        content = read_json(folder / "features.json")
        features = content["featuresDict"]["features"]
        foreign = [name for name in _class_names(content) if not str(name).startswith(_MODULES)]
        if foreign:
            raise UserError(f"{folder}/features.json names code to run, {foreign[0]!r:.80}: prepare the data again")
        if "image" not in features.get("image", {}) or "classLabel" not in features.get("label", {}):
            raise UserError(
                f"the data in {folder} is not for image classification: it has no features `image` and `label`"
            )
        dimensions = features["image"]["image"].get("shape", {}).get("dimensions", [])
        channels = int(dimensions[2]) if len(dimensions) == 3 and int(dimensions[2]) in MODES else 3
        names = folder / "label.labels.txt"  # exists only if the classes have names
        if names.is_file():
            return tuple(read_bounded(names, MOST_JSON_BYTES).decode().splitlines()), channels
        count = int(features["label"]["classLabel"]["numClasses"])
        if not 0 < count <= _MOST_CLASSES:
            raise ValueError(f"{count} classes")
        return tuple(map(str, range(count))), channels
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise damaged(folder, f"features.json: {error}") from error


def _class_names(content: Any) -> Iterator[Any]:
    """Yields the classes that a description names, at any depth."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        if name in ("pythonClassName", "python_class_name", "type") and isinstance(value, str):
            yield value
        yield from _class_names(value)
