"""How large a data set is, before it is there."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from convnext_jax.config import DataConfig
from convnext_jax.data.registry import Extent, dataset_names, known_extent
from convnext_jax.errors import UserError, check


def extent_before_data(data: DataConfig, train_examples: int | None, num_classes: int | None) -> Extent:
    """Returns what is known of a data set without loading it, and what the flags say beyond that.

    TFDS knows the classes of its data sets, and the shape of their images if all have the same. How many there are it
    knows once they are downloaded.

    Args:
      data: the settings.
      train_examples: what ``--train_examples`` says, or None.
      num_classes: what ``--num_classes`` says, or None.

    Raises:
      UserError: something is not known and not given, or given and known to be otherwise.
    """
    given = {"train_examples": train_examples, "num_classes": num_classes}
    for flag, value in given.items():
        if value is not None:
            check(f"--{flag}", value, value >= 1, "1 or more")
    extent = known_extent(data)
    known = _of_tfds(data) if extent is None else dataclasses.asdict(extent)
    for flag, value in given.items():
        if value is not None and known.get(flag, value) != value:
            raise UserError(f"--{flag} {value}: {data.name} has {known[flag]:,}; leave it out")
    known |= {flag: value for flag, value in given.items() if value is not None}
    flags = {"train_examples": "--train_examples", "num_classes": "--num_classes", "height": "--image_size"}
    if missing := [flag for name, flag in flags.items() if name not in known]:
        raise UserError(f"{data.name}: not all is known before its data are there; give {', '.join(missing)}")
    return Extent(**known)


def _of_tfds(data: DataConfig) -> dict[str, Any]:
    """Returns the fields of an extent that are known of a data set of TFDS, or of the user's pictures."""
    known: dict[str, Any] = {"channels": data.channels or 3}
    if data.name not in dataset_names():
        from convnext_jax.data.tfds_builders import check_features, make_builder  # takes seconds to import

        with tempfile.TemporaryDirectory() as nothing:
            builder = make_builder(data.name, Path(nothing), None)
            check_features(builder, data.image_size or 1)
            features: Any = builder.info.features
        height, width, channels = features["image"].shape
        labels = features["label"].num_classes if "label" in features else 0
        known = {"num_classes": labels, "channels": data.channels or channels or 3}
        if height is not None and width is not None:
            known |= {"height": height, "width": width}
    if data.image_size is not None:
        known |= {"height": data.image_size, "width": data.image_size}
    return known
