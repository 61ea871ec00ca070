"""The cache of decoded images: uint8 arrays in .npy files that later starts memory-map.

A cache is a folder. It is written under a temporary name and renamed when it is whole, so a folder with the
right name is complete; its sizes are checked all the same when it is opened.
"""

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convnext_jax.data.dataset import Dataset, PixelSums, Split
from convnext_jax.data.decode import Source, decode_split
from convnext_jax.files import exclusive, is_writable, sweep
from convnext_jax.errors import UserError

FORMAT = 1  # part of the folder's name: raise it when the layout or the decoding changes
DESCRIPTION = "dataset.json"
SPLITS = ("train", "test")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """What a cache is a cache of.

    Attributes:
      name: the data set's name.
      source: the folder with the data that is decoded; the cache lies in it where that is possible.
      fingerprint: changes when the data does.
      image_size: see ``decode.decode_picture``.
      variant: tells apart caches of one folder that differ in more than the size; may be empty.
    """

    name: str
    source: Path
    fingerprint: str
    image_size: int | None
    variant: str = ""

    def folders(self) -> list[Path]:
        """Where the cache may lie, the preferred place first."""
        size = self.image_size or "native"
        leaf = f"convnext_jax_cache-{size}{self.variant}-v{FORMAT}"
        source = self.source.resolve()
        identity = hashlib.sha256(f"{source}\n{self.fingerprint}".encode()).hexdigest()[:16]
        return [source / leaf, user_cache_folder() / f"{self.name.replace('/', '-')}-{identity}" / leaf]


def user_cache_folder() -> Path:
    """This project's part of the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convnext_jax"


def open_cache(key: CacheKey) -> Dataset | None:
    """Memory-maps the cached arrays, or returns None where there is no usable cache."""
    for folder in key.folders():
        try:
            return _open_folder(folder, key)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the cache %s cannot be used (%s) and is made again", folder, error)
    return None


def _open_folder(folder: Path, key: CacheKey) -> Dataset:
    meta = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    if meta["fingerprint"] != key.fingerprint:
        raise ValueError("the data has changed since")
    splits: dict[str, Split] = {}
    for name in SPLITS:
        arrays = {}
        for part, dtype in (("images", np.uint8), ("labels", np.int32)):
            # A file that is too short for its header raises ValueError here.
            array = np.load(folder / f"{name}_{part}.npy", mmap_mode="r", allow_pickle=False)
            if array.dtype != dtype or list(array.shape) != meta["shapes"][f"{name}_{part}"]:
                raise ValueError(f"{name}_{part}.npy holds {array.dtype} {array.shape}")
            arrays[part] = array
        splits[name] = Split(**arrays)
    return Dataset(
        name=key.name,
        class_names=tuple(meta["class_names"]),
        mean=np.array(meta["mean"], np.float32),
        std=np.array(meta["std"], np.float32),
        **splits,
    )


def build_cache(key: CacheKey, sources: Mapping[str, Source], class_names: tuple[str, ...]) -> Dataset:
    """Decodes the images into a new cache, unless another process has just done that, and opens it.

    Args:
      key: what to cache, and where.
      sources: the encoded pictures of ``train`` and ``test``.
      class_names: one name a class.

    Raises:
      UserError: a picture is unusable, a label has no class name, or the cache can be written nowhere.
    """
    folder = next((folder for folder in key.folders() if is_writable(folder.parent)), None)
    if folder is None:
        places = " nor ".join(str(folder.parent) for folder in key.folders())
        raise UserError(f"the decoded images of {key.name} can be written neither to {places}: set XDG_CACHE_HOME")
    try:
        with exclusive(folder.parent / f".{folder.name}.lock"):
            dataset = open_cache(key)
            if dataset is None:
                sweep(folder.parent, f".{folder.name}.tmp-*")
                with tempfile.TemporaryDirectory(prefix=f".{folder.name}.tmp-", dir=folder.parent) as temporary:
                    whole = Path(temporary) / folder.name
                    whole.mkdir()
                    _write(whole, key, sources, class_names)
                    sweep(folder.parent, folder.name)  # an older or damaged one; rename needs the name free
                    whole.rename(folder)
                dataset = _open_folder(folder, key)
    except OSError as error:
        raise UserError(f"the decoded images of {key.name} cannot be written to {folder}: {error}") from error
    return dataset


def _write(folder: Path, key: CacheKey, sources: Mapping[str, Source], class_names: tuple[str, ...]) -> None:
    sums: dict[str, PixelSums] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name in SPLITS:
        images = folder / f"{name}_images.npy"
        labels, sums[name] = decode_split(sources[name], images, key.image_size, f"decoding {key.name} {name}")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise UserError(
                f"data set {key.name}: the {name} split has labels from {labels.min()} to {labels.max()}, "
                f"and there are {len(class_names)} classes: a split without labels cannot be used"
            )
        np.save(folder / f"{name}_labels.npy", labels)
        shapes[f"{name}_labels"] = labels.shape
        shapes[f"{name}_images"] = np.load(images, mmap_mode="r").shape
    if shapes["train_images"][1:] != shapes["test_images"][1:]:
        raise UserError(
            f"data set {key.name}: train and test images differ in size: "
            "give one for all, for example --config.data.image_size=64"
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
    (folder / DESCRIPTION).write_text(json.dumps(meta, indent=1), encoding="utf-8")
