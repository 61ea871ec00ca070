"""What a prepared data set declares in ``features.json``: its classes, the channels of its images, masks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from convnext_jax.data.decode import MODES
from convnext_jax.data.prepared import damaged
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import MOST_JSON_BYTES, read_bounded, read_json

# TFDS imports the modules that the file names. Those below are its own.
_MODULES = "tensorflow_datasets."
_MOST_CLASSES = 1_000_000  # ImageNet-21k has 21,843


class Features(NamedTuple):
    """What a prepared data set declares.

    Attributes:
      class_names: the names of its classes; none if its images have no labels.
      channels: the number of channels of its images.
      masked: whether each image has a mask.
    """

    class_names: tuple[str, ...]
    channels: int
    masked: bool


def read_features(folder: Path) -> Features:
    """Returns what a prepared data set declares.

    Args:
      folder: a folder that `convnext_jax.data.prepared.find_prepared` returned.

    Raises:
      UserError: the file is damaged, the data have neither labels nor masks, or they need code that is not TFDS's.
    """
    try:
        content = read_json(folder / "features.json")
        features = content["featuresDict"]["features"]
        foreign = [name for name in _class_names(content) if not str(name).startswith(_MODULES)]
        if foreign:
            raise UserError(f"{folder}/features.json names code to run, {foreign[0]!r:.80}: prepare the data again")
        labeled = "classLabel" in features.get("label", {})
        masked = _channels(features, "segmentation_mask") == 1
        if "image" not in features.get("image", {}) or not (labeled or masked):
            raise UserError(
                f"the data in {folder} is not for image classification or segmentation: it has no features `image` and"
                " `label` or `segmentation_mask`"
            )
        channels = _channels(features, "image")
        class_names = _read_classes(folder, features["label"]["classLabel"]) if labeled else ()
        return Features(class_names, channels if channels in MODES else 3, masked)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise damaged(folder, f"features.json: {error}") from error


def _channels(features: Any, name: str) -> int | None:
    """Returns the channels of a feature; None if it is no image, or they are not declared."""
    dimensions = features.get(name, {}).get("image", {}).get("shape", {}).get("dimensions", [])
    return int(dimensions[2]) if len(dimensions) == 3 else None


def _read_classes(folder: Path, label: Any) -> tuple[str, ...]:
    names = folder / "label.labels.txt"  # exists only if the classes have names
    if names.is_file():
        class_names = tuple(read_bounded(names, MOST_JSON_BYTES).decode().splitlines())
        if not class_names:
            raise ValueError(f"{names.name} is empty")
        return class_names
    count = int(label["numClasses"])
    if not 0 < count <= _MOST_CLASSES:
        raise ValueError(f"{count} classes")
    return tuple(map(str, range(count)))


def _class_names(content: Any) -> Iterator[Any]:
    """Yields the classes that a description names, at any depth."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in items:
        if name in ("pythonClassName", "python_class_name", "type") and isinstance(value, str):
            yield value
        yield from _class_names(value)
