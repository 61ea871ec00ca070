"""The user's own pictures: ``train/<class>/*.{jpg,jpeg,png,webp}``, and some pictures to test on."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

from convnext_jax.config import DataConfig
from convnext_jax.data.cache import CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import Dataset
from convnext_jax.data.decode import MOST_BYTES, Picture
from convnext_jax.data.splitting import held_out, hold_out_validation
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import read_bounded
from convnext_jax.storage.files import expanded

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
TEST_FOLDERS = ("val", "validation", "test")


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Pictures in separate files, a `convnext_jax.data.decode_split.Source`.

    Attributes:
      paths: the paths of the files.
      labels: the label of each file.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Yields the pictures start, start + 1, ..., stop - 1."""
        for path, label in zip(self.paths[start:stop], self.labels[start:stop], strict=True):
            try:
                encoded = read_bounded(Path(path), MOST_BYTES)
            except OSError as error:
                raise UserError(f"picture {path} cannot be read ({error.strerror}): replace or remove it") from error
            yield Picture(path, encoded, label)


def load_image_folder(config: DataConfig) -> Dataset:
    """Loads the pictures in ``config.data_dir``.

    The classes are the folders in ``train/``, in alphabetical order. The pictures of a class are sorted by name. The
    test split is the first of the folders ``val/``, ``validation/`` and ``test/`` that exists. The validation split is
    the share ``config.validation_fraction`` of each class in ``train/``. If there is no test folder, this share is the
    test split instead. The hashes of the file names decide which pictures belong to it.

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
    sources, class_names = find_pictures(root, config.validation_fraction)
    channels = config.channels or 3
    key = CacheKey(config.name, root, _fingerprint(root, sources), config.image_size, channels, beside_source=False)
    dataset = open_cache(key) or build_cache(key, sources, class_names)
    if not config.validation_fraction or find_test_folder(root) is None:
        return dataset
    # The cache contains all of train/, whatever share of it is held out.
    names = [Path(path).relative_to(root / "train").as_posix() for path in sources["train"].paths]
    return hold_out_validation(dataset, config.validation_fraction, names)


def find_test_folder(root: Path) -> Path | None:
    """Returns the folder in ``root`` with the pictures of the test split, or None if there is none."""
    return next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)


def find_pictures(root: Path, validation_fraction: float) -> tuple[dict[str, FileSource], tuple[str, ...]]:
    """Lists the pictures and the classes.

    Args:
      root: the folder that contains ``train/``.
      validation_fraction: the share of ``train/`` that is the test split if there is no test folder.

    Returns:
      The pictures of ``train`` and ``test``, and the class names. If there is a test folder, ``train`` includes the
      pictures that are held out later.

    Raises:
      UserError: see `load_image_folder`.
    """
    if not (root / "train").is_dir():
        raise UserError(f"{root} has no folder train/: lay the pictures out as train/<class>/<picture>.jpg")
    train = _list_classes(root / "train")
    if len(train) < 2:
        raise UserError(f"{root / 'train'} has {len(train)} class folder(s): classification needs two or more")
    folder = find_test_folder(root)
    if folder is not None:
        test = _list_classes(folder)
        if unknown := sorted(set(test) - set(train)):
            raise UserError(f"{folder / unknown[0]} is a class that {root / 'train'} does not have: remove one of them")
        if not test:
            raise UserError(f"{folder} has no class folders: fill it, or remove it to hold out a share of train/")
    elif validation_fraction > 0:
        train, test = _hold_out(root, train, validation_fraction)
    else:
        raise UserError(
            f"{root} has no folder val/, validation/ or test/: make one, or hold out a share of the training "
            "pictures with --config.data.validation_fraction=0.1"
        )
    class_names = tuple(train)
    return {"train": _source(train, class_names), "test": _source(test, class_names)}, class_names


Classes = dict[str, list[Path]]  # the pictures of each class, both in alphabetical order


def _list_classes(folder: Path) -> Classes:
    """Lists the pictures in the class folders of a split."""
    classes: Classes = {}
    for child in sorted(folder.iterdir()):
        if child.name.startswith(".") or not child.is_dir():
            continue
        pictures = [path for path in sorted(child.iterdir()) if _is_picture(path)]
        if not pictures:
            raise UserError(f"class folder {child} has no pictures ({', '.join(SUFFIXES)}): fill or remove it")
        classes[child.name] = pictures
    return classes


def _is_picture(path: Path) -> bool:
    # File managers leave files behind whose names begin with a dot, some of them with the suffix of a picture.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _hold_out(root: Path, classes: Classes, fraction: float) -> tuple[Classes, Classes]:
    """Splits the pictures of ``train/`` into those to keep and those to hold out."""
    for name, pictures in classes.items():
        if len(pictures) < 2:
            raise UserError(f"class folder {root / 'train' / name} has one picture: a class to be split needs two")
    pairs = [(name, path) for name, pictures in classes.items() for path in pictures]
    chosen = held_out([f"{name}/{path.name}" for name, path in pairs], [name for name, _ in pairs], fraction)
    kept: Classes = {name: [] for name in classes}
    held: Classes = {name: [] for name in classes}
    for (name, path), out in zip(pairs, chosen, strict=True):
        (held if out else kept)[name].append(path)
    return kept, held


def _source(classes: Classes, class_names: tuple[str, ...]) -> FileSource:
    pairs = [(str(path), class_names.index(name)) for name, pictures in classes.items() for path in pictures]
    paths, labels = zip(*pairs, strict=True)
    return FileSource(paths, labels)


def _fingerprint(root: Path, sources: dict[str, FileSource]) -> str:
    """Returns a string that changes when a picture is added, removed, rewritten or moved to another split."""
    digest = hashlib.sha256()
    for split, source in sources.items():
        for path in source.paths:
            status = Path(path).stat()
            name = Path(path).relative_to(root)
            digest.update(f"{split} {name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
