"""The user's own pictures with masks: ``train/images/`` and ``train/masks/``, and some pictures to test on."""

import dataclasses
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from convnext_jax.config import DataConfig
from convnext_jax.data.cache import CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import IGNORED, Dataset, by_reason
from convnext_jax.data.decode import FORMATS
from convnext_jax.data.decode_mask import SUFFIXES, wrong_kind
from convnext_jax.data.image_folder import (
    OTHER_SPLITS,
    FileSource,
    count_other_splits,
    find_test_folder,
    fingerprint,
)
from convnext_jax.data.image_folder_layout import no_test_folder
from convnext_jax.data.mask_classes import MaskClasses
from convnext_jax.data.picture_files import find_pictures, list_folder
from convnext_jax.data.splitting import held_out, hold_out_validation
from convnext_jax.errors import UserError, system_reason
from convnext_jax.storage.bounded import read_bounded
from convnext_jax.storage.files import expanded

_CLASSES = "classes.txt"
_MOST_BYTES = 1 << 20  # of that file
_LAYOUT = "lay the data out as train/images/NAME.jpg and train/masks/NAME.png"


def load_mask_folder(config: DataConfig) -> Dataset:
    """Loads the pictures and masks in ``config.data_dir``.

    The training split is ``train/``, or the folder itself if there is no ``train/``. The test split is the first of
    the folders ``val/``, ``validation/`` and ``test/`` that exists. Each has the pictures in ``images/``, at any depth,
    and their masks in ``masks/``, under the same names except for the suffix. The validation split is the share
    ``config.validation_fraction`` of the training split. If there is no test folder, this share is the test split
    instead. The hashes of the file names decide which pictures belong to it.

    The value of a pixel of a mask is its index if the mask has a palette, else its gray value. It is the number of a
    class, or 255 if the class is not known. If all masks are black and white, white is class 1. ``classes.txt`` may
    name the classes, one a line. Otherwise the largest value in the training masks decides how many there are.

    Args:
      config: all fields except ``manual_dir`` are used.

    Returns:
      The data set. All labels are 0, and there are no classes of images.

    Raises:
      UserError: a folder is missing or empty, a picture has no mask, there is nothing to test on, a file cannot be
        read, a mask differs in size from its picture, a value is no class, or the pictures differ in size and no size
        is given.
    """
    if config.data_dir is None:
        raise UserError(
            "data set mask_folder: name the folder that holds train/images/ and train/masks/ with"
            " --config.data.data_dir=DIR"
        )
    root = expanded(config.data_dir)
    sources, left_out = find_pairs(root, config.validation_fraction)
    names = _read_classes(root)
    remedy = "correct the mask" if names else f"correct the mask, or name all classes in {_CLASSES}, one a line"
    key = CacheKey(
        config.name,
        root,
        "\n".join([fingerprint(root, sources), *names]),
        config.image_size,
        config.channels or 3,
        beside_source=False,
        masks=MaskClasses(names, remedy=remedy),
    )
    dataset = open_cache(key) or build_cache(key, sources, ())
    dataset = dataclasses.replace(dataset, left_out=left_out)
    if not config.validation_fraction or find_test_folder(root) is None:
        return dataset
    # The cache contains all of the training split, whatever share of it is held out.
    images = _train_folder(root) / "images"
    names_of_pictures = [_name(images, Path(path)) for path in sources["train"].paths]
    return hold_out_validation(dataset, config.validation_fraction, names_of_pictures)


class Found(NamedTuple):
    """What there is in a folder.

    Attributes:
      sources: the pictures of ``train`` and ``test``. If there is a test folder, ``train`` includes the pictures that
        are held out later.
      left_out: how many files are not used, by reason.
    """

    sources: dict[str, FileSource]
    left_out: dict[str, int]


def find_pairs(root: Path, validation_fraction: float) -> Found:
    """Lists the pictures and their masks.

    Args:
      root: the folder that contains ``train/``, or ``images/`` and ``masks/``.
      validation_fraction: the share of the training pictures that is the test split if there is no test folder.

    Raises:
      UserError: see `load_mask_folder`.
    """
    left_out: Counter[str] = Counter()
    folder = _train_folder(root)
    if not (folder / "images").is_dir():
        raise _no_images(root)
    train = _list_pairs(root, folder, left_out)
    tested = find_test_folder(root)
    if tested is not None:
        test = _list_pairs(root, tested, left_out)
    elif validation_fraction > 0:
        train, test = _hold_out(folder, train, validation_fraction)
    else:
        raise no_test_folder(root)
    count_other_splits(root, tested, left_out)
    return Found({"train": _source(train), "test": _source(test)}, dict(+left_out))


def _train_folder(root: Path) -> Path:
    return root / "train" if (root / "train").is_dir() else root


Pairs = dict[str, tuple[Path, Path]]  # picture and mask by name


def _list_pairs(root: Path, split: Path, left_out: Counter[str]) -> Pairs:
    """Lists the pictures of a split and their masks, in the order of the pictures."""
    pictures, masks = (_list_files(root, split / name, left_out) for name in ("images", "masks"))
    for path in masks.values():
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise wrong_kind(str(path), "JPEG" if suffix in FORMATS["JPEG"] else suffix)
    for name, path in pictures.items():
        if name not in masks:
            raise UserError(f"picture {path} has no mask: add {split / 'masks' / name}.png, or remove the picture")
    left_out["masks without a picture"] += len(masks.keys() - pictures.keys())
    return {name: (path, masks[name]) for name, path in pictures.items()}


def _list_files(root: Path, folder: Path, left_out: Counter[str]) -> dict[str, Path]:
    """Lists the pictures or masks in a folder by their names, which are unique."""
    if not folder.is_dir():
        raise UserError(f"{folder.parent} has no folder {folder.name}/: {_LAYOUT}")
    splits = [path.name for path in list_folder(folder)[0] if path.name.lower() in ("train", *OTHER_SPLITS)]
    if splits:
        raise UserError(f"{folder} has a folder {splits[0]}/: {_LAYOUT}")
    unused: Counter[str] = Counter()
    paths = find_pictures(folder, unused, above=(root, folder.parent))
    if not paths:
        other = f", only {by_reason(unused)}" if unused else ""
        raise UserError(f"folder {folder} is empty{other}: {_LAYOUT}")
    left_out.update(unused)
    found: dict[str, Path] = {}
    for path in paths:
        first = found.setdefault(_name(folder, path), path)
        if first != path:
            raise UserError(f"{first} and {path.name} belong to the same picture: remove or rename one of them")
    return found


def _name(folder: Path, path: Path) -> str:
    """Returns what a picture and its mask have in common: the path in their folder, without the suffix.

    It is in Unicode's composed form (NFC), which macOS does not write.
    """
    return unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())


def _hold_out(folder: Path, pairs: Pairs, fraction: float) -> tuple[Pairs, Pairs]:
    """Splits the pictures to train on into those to keep and those to hold out."""
    if len(pairs) < 2:
        raise UserError(f"folder {folder / 'images'} has one picture: to hold one out takes two")
    chosen = held_out(list(pairs), [0] * len(pairs), fraction)
    kept, held = (
        {name: pair for (name, pair), out in zip(pairs.items(), chosen, strict=True) if out == wanted}
        for wanted in (False, True)
    )
    return kept, held


def _source(pairs: Pairs) -> FileSource:
    pictures, masks = zip(*((str(picture), str(mask)) for picture, mask in pairs.values()), strict=True)
    return FileSource(pictures, (0,) * len(pictures), masks)


def _no_images(root: Path) -> UserError:
    """Returns the error for a folder without pictures to train on."""
    if not root.exists():
        return UserError(f"{root} does not exist: name the folder of the data with --config.data.data_dir=DIR")
    if not root.is_dir():
        return UserError(f"{root} is a file: unpack it, and name its folder with --config.data.data_dir=DIR")
    if (root / "train").is_dir():
        return UserError(f"{root / 'train'} has no folder images/: {_LAYOUT}")
    for folder in list_folder(root)[0]:
        if folder.name.lower() in ("train", "images"):
            name = folder.name.lower()
            return UserError(f"{root} has no folder {name}/, but {folder.name}/: rename it to {name}")
    below = "images" if find_test_folder(root) is None else "train/images"
    for folder in list_folder(root)[0]:
        if (folder / "train/images").is_dir() or (folder / below).is_dir():
            return UserError(f"{root} has no images/, but {folder} has: name that with --config.data.data_dir={folder}")
    return UserError(f"{root} has neither train/images/ nor images/: {_LAYOUT}")


def _read_classes(root: Path) -> tuple[str, ...]:
    """Returns the names in ``classes.txt``; none if there is no such file."""
    path = root / _CLASSES
    try:
        lines = read_bounded(path, _MOST_BYTES).decode("utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({system_reason(error)}): replace or remove it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from error
    names = tuple(line.strip() for line in lines)
    if not 2 <= len(names) <= IGNORED:
        raise UserError(
            f"{path} names {len(names)} class(es), and there must be 2 to {IGNORED}: write one on each line"
        )
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            problem = f"names {name} again" if name else "is empty"
            raise UserError(f"{path}: line {number} {problem}: give each class a name of its own")
    return names
