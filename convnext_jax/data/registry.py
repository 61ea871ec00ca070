"""The names of the data sets, and what is known of them before they are there."""

import dataclasses
import difflib
import re

from convnext_jax.config import DataConfig
from convnext_jax.errors import UserError

OWN_NAMES = ("digits", "cifar10", "cifar100", "tiny_imagenet", "image_folder")


@dataclasses.dataclass(frozen=True)
class Extent:
    """How large a data set is.

    Attributes:
      height: of its images, in pixels.
      width: the same.
      num_classes: number of classes.
      train_examples: images of the training split, none held out; None where that is not known.
    """

    height: int
    width: int
    num_classes: int
    train_examples: int | None = None


# Of the data sets that are the same wherever they lie.
_EXTENTS = {
    "digits": Extent(32, 32, 10, 1_438),
    "cifar10": Extent(32, 32, 10, 50_000),
    "cifar100": Extent(32, 32, 100, 50_000),
    "tiny_imagenet": Extent(64, 64, 200, 100_000),
}


def dataset_names() -> tuple[str, ...]:
    """The names that this project documents; every image classification data set of TFDS works as well."""
    return OWN_NAMES


def known_extent(config: DataConfig) -> Extent | None:
    """The extent of a data set as it is before it is there, resized as configured; None of most.

    >>> known_extent(DataConfig("cifar100"))
    Extent(height=32, width=32, num_classes=100, train_examples=50000)
    """
    extent = _EXTENTS.get(config.name)
    if extent is None or config.image_size is None:
        return extent
    return dataclasses.replace(extent, height=config.image_size, width=config.image_size)


def check_name(name: str) -> None:
    """Refuses a data set that does not exist.

    Args:
      name: a name of ``dataset_names()``, or of a data set that TFDS registers, with its configuration after
        a slash where it has several.

    Raises:
      UserError: there is no such data set.
    """
    if name in OWN_NAMES:
        return
    known: set[str] = set(OWN_NAMES)
    if re.fullmatch(r"\w+(/[\w.\-]+)?", name):
        import tensorflow_datasets as tfds  # a second to import, so only where a name is not one of ours

        known.update(tfds.list_builders(with_community_datasets=False))
        if name.partition("/")[0] in known - set(OWN_NAMES):
            return
    close = difflib.get_close_matches(name, OWN_NAMES, n=1, cutoff=0.8)
    close = close or difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"unknown data set {name!r}: {hint}Use one of {', '.join(OWN_NAMES)}, or the name of another image "
        "classification data set of TFDS"
    )
