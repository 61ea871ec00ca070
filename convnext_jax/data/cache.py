"""The cache of decoded images: uint8 arrays in .npy files, which later runs memory-map.

A cache is a folder. It is written under a temporary name and renamed once it is complete, so a folder with the right
name is complete. The shapes of its arrays are checked anyway when it is opened.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax.data.dataset import Dataset, PixelSums, Split
from convnext_jax.data.decode_masked_split import decode_masked_split
from convnext_jax.data.decode_split import CHUNK, Source, decode_split, scan_split
from convnext_jax.data.encoded_images import EncodedImages, RandomAccess
from convnext_jax.data.mask_classes import MaskClasses, Uses
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import read_json
from convnext_jax.storage.files import exclusive, is_writable, new_folder, sweep, user_cache_folder, write_json

# Part of the folder's name; increase it when the layout or the decoding changes. 2: EXIF, 16 bits and transparency.
FORMAT = 2
DESCRIPTION = "dataset.json"
SPLITS = ("train", "test")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """What a cache contains, and where it may be.

    Attributes:
      name: the name of the data set.
      source: the folder with the data to decode. The cache is put into it if possible.
      fingerprint: a string that changes when the data changes.
      image_size: see `convnext_jax.data.decode.decode_picture`.
      channels: number of channels of the images, 1 to 4.
      beside_source: whether the cache may be put into the source folder. It may not if the folder is the user's own.
      encoded: the pictures of ``train``, if they stay encoded. The cache holds all that must be known of them, and the
        pixels of ``test``.
      masks: what is known of the classes of the masks; None if there are no masks.
    """

    name: str
    source: Path
    fingerprint: str
    image_size: int | None
    channels: int = 3
    beside_source: bool = True
    encoded: RandomAccess | None = None
    masks: MaskClasses | None = None

    def folders(self) -> list[Path]:
        """Returns the folders that the cache may be in, in order of preference; raises UserError if there is none."""
        size = self.image_size or "native"
        channels = "" if self.channels == 3 else f"-{self.channels}channels"
        encoded = "" if self.encoded is None else "-encoded"
        masks = "" if self.masks is None else "-masks"
        leaf = f"convnext_jax_cache-{size}{channels}{encoded}{masks}-v{FORMAT}"
        source = self.source.resolve()
        identity = hashlib.sha256(f"{source}\n{self.fingerprint}".encode()).hexdigest()[:16]
        folders = [source / leaf] if self.beside_source else []
        try:
            folders.append(user_cache_folder() / f"{self.name.replace('/', '-')}-{identity}" / leaf)
        except UserError:  # there is no home folder
            if not folders:
                raise
        return folders


def open_cache(key: CacheKey) -> Dataset | None:
    """Opens a cache.

    Args:
      key: what the cache contains.

    Returns:
      The data set, with memory-mapped images, labels and masks, or None if there is no usable cache.
    """
    for folder in key.folders():
        try:
            return _open_folder(folder, key)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            log.warning("the cache %s cannot be used (%s) and will be built again", folder, error)
    return None


def _open_folder(folder: Path, key: CacheKey) -> Dataset:
    meta = read_json(folder / DESCRIPTION)
    if meta["fingerprint"] != key.fingerprint:
        raise ValueError("the data has changed")
    splits: dict[str, Split] = {}
    parts = {"images": np.uint8, "labels": np.int32} | ({} if key.masks is None else {"masks": np.uint8})
    for name in SPLITS:
        if name == "test" and "test_images" not in meta["shapes"]:
            train = splits["train"]
            splits[name] = Split(train.images[:0], train.labels[:0], None if train.masks is None else train.masks[:0])
            continue
        arrays: dict[str, Any] = {}
        for part, dtype in parts.items():
            if key.encoded is not None and (name, part) == ("train", "images"):
                arrays[part] = _encoded_images(key.encoded, meta["shapes"]["train_images"], key)
                continue
            # This raises ValueError if the file is shorter than its header says.
            array = np.load(folder / f"{name}_{part}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype != dtype or list(array.shape) != meta["shapes"][f"{name}_{part}"]:
                raise ValueError(f"{name}_{part}.npy holds {array.dtype} {array.shape}")
            arrays[part] = array
        splits[name] = Split(**arrays)
    return Dataset(
        name=key.name,
        train=splits["train"],
        test=splits["test"],
        class_names=tuple(meta["class_names"]),
        mean=np.array(meta["mean"], np.float32),
        std=np.array(meta["std"], np.float32),
        origin=str(key.source),
        mask_names=() if key.masks is None else tuple(meta["mask_names"]),
    )


def _encoded_images(source: RandomAccess, shape: list[int], key: CacheKey) -> EncodedImages:
    count, *image_shape = map(int, shape)
    if count != len(source) or len(image_shape) != 3 or not all(1 <= side <= 4096 for side in image_shape):
        raise ValueError(f"the encoded images have the shape {shape}")
    return EncodedImages(source, (image_shape[0], image_shape[1], image_shape[2]), key.image_size)


def build_cache(key: CacheKey, sources: Mapping[str, Source], class_names: tuple[str, ...]) -> Dataset:
    """Decodes the images into a new cache and opens it. Only opens it if another process has just built it.

    Args:
      key: what to cache, and where.
      sources: the encoded pictures of ``train`` and ``test``; without ``test`` that split is empty.
      class_names: one name for each class; none if the pictures have no classes.

    Returns:
      The data set, with memory-mapped images, labels and masks.

    Raises:
      UserError: a picture or a mask is unusable, a label has no class name, the images of the two splits differ in
        size, or the cache cannot be written anywhere.
    """
    folder = next((folder for folder in key.folders() if is_writable(folder.parent)), None)
    if folder is None:
        places = [str(folder.parent) for folder in key.folders()]
        verb = "can be written neither to" if len(places) > 1 else "cannot be written to"
        raise UserError(f"the decoded images of {key.name} {verb} {' nor to '.join(places)}: set XDG_CACHE_HOME")
    try:
        with exclusive(folder.parent / f".{folder.name}.lock"):
            dataset = open_cache(key)
            if dataset is None:
                sweep(folder.parent, f".{folder.name}.tmp-*")
                with new_folder(folder) as unfinished:
                    _write(unfinished, key, sources, class_names)
                    # An outdated or damaged cache, or one of an earlier format, which nothing else would remove.
                    sweep(folder.parent, f"{folder.name.removesuffix(str(FORMAT))}[1-{FORMAT}]")
                dataset = _open_folder(folder, key)
    except OSError as error:
        raise UserError(f"the decoded images of {key.name} cannot be written to {folder}: {error}") from error
    return dataset


def _write(folder: Path, key: CacheKey, sources: Mapping[str, Source], class_names: tuple[str, ...]) -> None:
    sums: dict[str, PixelSums] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    uses: dict[str, Uses] = {}
    for name in sources:
        images = folder / f"{name}_images.npy"
        title = f"decoding {key.name} {name}"
        if key.encoded is not None and name == "train":
            labels, sums[name], shape = scan_split(sources[name], key.image_size, key.channels, title)
            shapes["train_images"] = (len(labels), *shape)
        elif key.masks is not None:
            masks = folder / f"{name}_masks.npy"
            decoded = decode_masked_split(sources[name], images, masks, key.image_size, key.channels, title)
            labels, sums[name], uses[name] = decoded.labels, decoded.sums, decoded.uses
            shapes |= {f"{name}_images": _shape(images), f"{name}_masks": _shape(masks)}
        else:
            labels, sums[name] = decode_split(sources[name], images, key.image_size, key.channels, title)
            shapes[f"{name}_images"] = _shape(images)
        if class_names and (labels.min() < 0 or labels.max() >= len(class_names)):
            raise UserError(
                f"data set {key.name}: the {name} split has labels from {labels.min()} to {labels.max()}, "
                f"and there are {len(class_names)} classes: a split without labels cannot be used"
            )
        np.save(folder / f"{name}_labels.npy", labels)
        shapes[f"{name}_labels"] = labels.shape
    if len({shapes[f"{name}_images"][1:] for name in sources}) > 1:
        raise UserError(
            f"data set {key.name}: train and test images differ in size: "
            "give one size for all, for example --config.data.image_size=64"
        )
    mean, std = sums["train"].mean_and_std()
    meta = {
        "name": key.name,
        "source": str(key.source),
        "fingerprint": key.fingerprint,
        "class_names": class_names,
        "shapes": shapes,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }
    if key.masks is not None:
        meta["mask_names"] = _number_classes(folder, key.masks, sources, uses)
    write_json(folder / DESCRIPTION, meta)


def _shape(path: Path) -> tuple[int, ...]:
    return np.load(path, mmap_mode="r", allow_pickle=False).shape


def _number_classes(
    folder: Path, classes: MaskClasses, sources: Mapping[str, Source], uses: Mapping[str, Uses]
) -> tuple[str, ...]:
    """Turns the values of the masks into class numbers, and returns the names of the classes."""

    def name_of(split: str, index: int) -> str:
        mask = next(sources[split].read(index, index + 1)).mask
        return "" if mask is None else mask.name

    table, names = classes.table(uses, name_of)
    if (table != np.arange(256)).any():
        for split in sources:
            masks = np.lib.format.open_memmap(folder / f"{split}_masks.npy", mode="r+")
            for start in range(0, len(masks), CHUNK):
                masks[start : start + CHUNK] = table[masks[start : start + CHUNK]]
    return names
