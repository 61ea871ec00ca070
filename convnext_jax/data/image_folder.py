"""The user's own pictures: ``train/<class>/``, and some pictures to test on."""

import dataclasses
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from convnext_jax.config import DataConfig
from convnext_jax.data.cache import CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import Dataset, by_reason
from convnext_jax.data.decode import MOST_BYTES, Mask, Picture
from convnext_jax.data.image_folder_layout import (
    no_test_classes,
    no_test_folder,
    no_train_folder,
    too_few_classes,
    unknown_class,
)
from convnext_jax.data.picture_files import count_files, find_pictures, list_folder
from convnext_jax.data.splitting import held_out, hold_out_validation
from convnext_jax.errors import UserError, system_reason
from convnext_jax.storage.bounded import read_bounded
from convnext_jax.storage.files import expanded

TEST_FOLDERS = ("val", "validation", "test")
OTHER_SPLITS = (*TEST_FOLDERS, "valid", "dev", "eval")  # folders that look as if they were meant to be used


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Pictures in separate files, a `convnext_jax.data.decode_split.Source`.

    Attributes:
      paths: the paths of the files.
      labels: the label of each file.
      masks: the path of the mask of each file; none if there are no masks.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    masks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Yields the pictures start, start + 1, ..., stop - 1."""
        for index in range(start, min(stop, len(self))):
            path = self.paths[index]
            mask = Mask(self.masks[index], _read("mask", self.masks[index])) if self.masks else None
            yield Picture(path, _read("picture", path), self.labels[index], mask)


def _read(kind: str, path: str) -> bytes:
    try:
        return read_bounded(Path(path), MOST_BYTES)
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read ({system_reason(error)}): replace or remove it") from error


def load_image_folder(config: DataConfig) -> Dataset:
    """Loads the pictures in ``config.data_dir``.

    The classes are the folders in ``train/``, in the alphabetical order of their names, brought into Unicode's composed
    form (NFC), which macOS does not write. The pictures of a class lie in its folder at any depth; see
    `convnext_jax.data.picture_files.find_pictures` for their order. The test split is the first of the folders
    ``val/``, ``validation/`` and ``test/`` that exists. The validation split is the share
    ``config.validation_fraction`` of each class in ``train/``. If there is no test folder, this share is the test split
    instead. The hashes of the file names decide which pictures belong to it.

    Args:
      config: all fields except ``manual_dir`` are used.

    Returns:
      The data set.

    Raises:
      UserError: a folder is missing, a class is empty, there is only one class, there is nothing to test on, a picture
        cannot be read, or the pictures differ in size and no size is given.
    """
    if config.data_dir is None:
        raise UserError("data set image_folder: name the folder that holds train/ with --config.data.data_dir=DIR")
    root = expanded(config.data_dir)
    sources, class_names, left_out = find_splits(root, config.validation_fraction)
    channels = config.channels or 3
    key = CacheKey(config.name, root, fingerprint(root, sources), config.image_size, channels, beside_source=False)
    dataset = open_cache(key) or build_cache(key, sources, class_names)
    dataset = dataclasses.replace(dataset, left_out=left_out)
    if not config.validation_fraction or find_test_folder(root) is None:
        return dataset
    # The cache contains all of train/, whatever share of it is held out.
    names = [_name_in(root / "train", Path(path)) for path in sources["train"].paths]
    return hold_out_validation(dataset, config.validation_fraction, names)


def find_test_folder(root: Path) -> Path | None:
    """Returns the folder in ``root`` with the pictures of the test split, or None if there is none."""
    return next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)


class Found(NamedTuple):
    """What there is in a folder.

    Attributes:
      sources: the pictures of ``train`` and ``test``. If there is a test folder, ``train`` includes the pictures that
        are held out later.
      class_names: a name for each class.
      left_out: how many files are not used, by reason.
    """

    sources: dict[str, FileSource]
    class_names: tuple[str, ...]
    left_out: dict[str, int]


def find_splits(root: Path, validation_fraction: float) -> Found:
    """Lists the pictures and the classes.

    Args:
      root: the folder that contains ``train/``.
      validation_fraction: the share of ``train/`` that is the test split if there is no test folder.

    Raises:
      UserError: see `load_image_folder`.
    """
    if not (root / "train").is_dir():
        raise no_train_folder(root)
    left_out: Counter[str] = Counter()
    train = _list_classes(root, root / "train", left_out)
    if len(train) < 2:
        raise too_few_classes(root / "train", train)
    folder = find_test_folder(root)
    if folder is not None:
        test = _list_classes(root, folder, left_out)
        for name, pictures in test.items():
            if name not in train:
                raise unknown_class(folder / pictures[0].relative_to(folder).parts[0], root / "train", train)
        if not test:
            raise no_test_classes(folder)
    elif validation_fraction > 0:
        train, test = _hold_out(root, train, validation_fraction)
    else:
        raise no_test_folder(root)
    count_other_splits(root, folder, left_out)
    class_names = tuple(train)
    sources = {"train": _source(train, class_names), "test": _source(test, class_names)}
    return Found(sources, class_names, dict(+left_out))


def count_other_splits(root: Path, used: Path | None, left_out: Counter[str]) -> None:
    """Adds to ``left_out`` the files in folders that look as if they were meant to be tested on, except ``used``."""
    for other in list_folder(root)[0]:
        if other.name.lower() in OTHER_SPLITS and other != used:
            left_out[f"in {other.name}/, which is not used"] = count_files(other)


Classes = dict[str, list[Path]]  # the pictures of each class


def _list_classes(root: Path, split: Path, left_out: Counter[str]) -> Classes:
    """Lists the pictures in the class folders of a split, the classes in alphabetical order."""
    folders, loose = list_folder(split, left_out)
    classes: Classes = {}
    for folder in folders:
        unused: Counter[str] = Counter()
        pictures = find_pictures(folder, unused, above=(root, split))
        if not pictures:
            other = f", only {by_reason(unused)}" if unused else ""
            raise UserError(f"class folder {folder} has no pictures{other}: fill or remove it")
        name = _class_name(folder)
        if name in classes:
            raise UserError(f"{split} has two class folders {name}, written in two ways in Unicode: make them one")
        classes[name] = pictures
        left_out.update(unused)
    left_out["outside of the class folders"] += len(loose)
    return dict(sorted(classes.items()))


def _class_name(folder: Path) -> str:
    name = unicodedata.normalize("NFC", folder.name)
    if any("\ud800" <= character <= "\udfff" for character in name):  # what Python makes of bytes that are no UTF-8
        raise UserError(f"class folder {str(folder)!a} has a name that is not UTF-8: rename it")
    return name


def _hold_out(root: Path, classes: Classes, fraction: float) -> tuple[Classes, Classes]:
    """Splits the pictures of ``train/`` into those to keep and those to hold out."""
    for name, pictures in classes.items():
        if len(pictures) < 2:
            raise UserError(f"class folder {root / 'train' / name} has one picture: a class to be split needs two")
    pairs = [(name, path) for name, pictures in classes.items() for path in pictures]
    names = [_name_in(root / "train", path) for _, path in pairs]
    chosen = held_out(names, [name for name, _ in pairs], fraction)
    kept: Classes = {name: [] for name in classes}
    held: Classes = {name: [] for name in classes}
    for (name, path), out in zip(pairs, chosen, strict=True):
        (held if out else kept)[name].append(path)
    return kept, held


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _source(classes: Classes, class_names: tuple[str, ...]) -> FileSource:
    pairs = [(str(path), class_names.index(name)) for name, pictures in classes.items() for path in pictures]
    paths, labels = zip(*pairs, strict=True)
    return FileSource(paths, labels)


def fingerprint(root: Path, sources: dict[str, FileSource]) -> str:
    """Returns a string that changes when a file is added, removed, rewritten or moved to another split."""
    digest = hashlib.sha256()
    for split, source in sources.items():
        for path in (*source.paths, *source.masks):
            status = Path(path).stat()
            name = Path(path).relative_to(root)
            digest.update(f"{split} {name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
