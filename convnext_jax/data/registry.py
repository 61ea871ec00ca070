"""The names of the data sets, and what is known about them before they are downloaded."""

import dataclasses
import difflib
import re

from convnext_jax.config import DataConfig
from convnext_jax.errors import UserError

# Too large for a device, and for most disks once decoded: their training pictures stay encoded. The user has them.
STREAMED_NAMES = ("imagenet_resized/64x64", "imagenet2012")
FOLDER_NAMES = ("image_folder", "mask_folder")  # of the user's own pictures
MADE_NAMES = ("digits", "digit_scenes")  # from files of a package, not from a folder
OWN_NAMES = (
    *MADE_NAMES,
    "cifar10",
    "cifar100",
    "tiny_imagenet",
    "image_folder",
    "oxford_iiit_pet",
    "mask_folder",
    *STREAMED_NAMES,
)


@dataclasses.dataclass(frozen=True)
class Extent:
    """The size of a data set.

    Attributes:
      height: height of the images in pixels.
      width: width of the images in pixels.
      num_classes: number of classes of the images; 0 if they have no labels.
      train_examples: number of training examples, before any are held out; None if it is unknown.
      channels: number of channels of the images.
      mask_classes: number of classes of the masks; 0 if there are no masks.
    """

    height: int
    width: int
    num_classes: int
    train_examples: int | None = None
    channels: int = 3
    mask_classes: int = 0


# Only of data sets that are the same on every machine. Images of several sizes have the size 0.
_EXTENTS = {
    "digits": Extent(32, 32, 10, 1_438),
    "digit_scenes": Extent(64, 64, 4, 4_000, mask_classes=11),
    "cifar10": Extent(32, 32, 10, 50_000),
    "cifar100": Extent(32, 32, 100, 50_000),
    "tiny_imagenet": Extent(64, 64, 200, 100_000),
    "oxford_iiit_pet": Extent(0, 0, 37, 3_680, mask_classes=3),
    "imagenet_resized/64x64": Extent(64, 64, 1000, 1_281_167),
}


def dataset_names() -> tuple[str, ...]:
    """Returns the names of the documented data sets. Those of TFDS with labeled images or masks work as well."""
    return OWN_NAMES


def known_extent(config: DataConfig) -> Extent | None:
    """Returns the size of a data set without loading it.

    >>> known_extent(DataConfig("cifar100"))
    Extent(height=32, width=32, num_classes=100, train_examples=50000, channels=3, mask_classes=0)

    Args:
      config: the data set, and the size and the channels that its images are converted to.

    Returns:
      The size, with the images as configured, or None if it is unknown, as for most data sets.
    """
    extent = _EXTENTS.get(config.name)
    if extent is None or not (config.image_size or extent.height):
        return None
    size = (config.image_size,) * 2 if config.image_size else (extent.height, extent.width)
    return dataclasses.replace(extent, height=size[0], width=size[1], channels=config.channels or extent.channels)


def check_name(name: str) -> None:
    """Raises an error if there is no data set with the given name.

    Args:
      name: one of `dataset_names`, or the name of a data set that is registered with TFDS, followed by a slash and its
        configuration if it has several.

    Raises:
      UserError: there is no such data set.
    """
    if name in OWN_NAMES:
        return
    known: set[str] = set(OWN_NAMES)
    if re.fullmatch(r"\w+(/[\w.\-]+)?", name):
        import tensorflow_datasets as tfds  # takes a second to import, so only for names that are not our own

        known.update(tfds.list_builders(with_community_datasets=False))
        if name.partition("/")[0] in known - set(OWN_NAMES):
            return
    close = difflib.get_close_matches(name, OWN_NAMES, n=1, cutoff=0.8)
    close = close or difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"unknown data set {name!r}: {hint}use one of {', '.join(OWN_NAMES)}, or the name of another data set in TFDS "
        "with labeled images or masks"
    )
