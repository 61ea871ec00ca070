"""Folders of pictures that are laid out in another way: what to do about it, in one line."""

import os
from collections.abc import Collection
from pathlib import Path

from convnext_jax.data.picture_files import list_folder
from convnext_jax.errors import UserError

_MOST_NAMED = 3


def no_train_folder(root: Path) -> UserError:
    """Returns the error for a folder without ``train/``."""
    if not os.path.exists(root):
        return UserError(f"{root} does not exist: name the folder that holds train/ with --config.data.data_dir=DIR")
    if not os.path.isdir(root):
        return UserError(f"{root} is a file: unpack it, and name its folder with --config.data.data_dir=DIR")
    missing = f"{root} has no folder train/"
    folders, pictures = list_folder(root)
    for folder in folders:
        if folder.name.lower() == "train":
            return UserError(f"{missing}, but {folder.name}/: rename it to train")
    for folder in folders:
        if os.path.isdir(folder / "train"):
            return UserError(f"{missing}, but {folder} has: name that with --config.data.data_dir={folder}")
    classes = [folder for folder in folders if _holds_pictures(folder)]
    if root.name == "train" and classes:
        return UserError(f"{missing}, it is one: name the folder above it with --config.data.data_dir={root.parent}")
    if len(classes) > 1:
        return UserError(
            f"{missing}, but class folders ({_named(classes)}): move them into {root / 'train'}/, and hold a share of"
            " their pictures out with --config.data.validation_fraction=0.1"
        )
    if pictures:
        return UserError(f"{missing}, but {len(pictures):,} pictures: move them into train/<class>/")
    return UserError(f"{missing}: lay the pictures out as train/<class>/<picture>.jpg")


def too_few_classes(train: Path, classes: Collection[str]) -> UserError:
    """Returns the error for a folder ``train/`` with fewer than two class folders."""
    folders, pictures = list_folder(train)
    if len(folders) == 1:
        inner, beside = list_folder(folders[0])
        if len(inner) > 1 and not beside:  # as a zip file makes it that holds a folder
            return UserError(f"{train} has one folder, {folders[0].name}/: move up the folders in it ({_named(inner)})")
    loose = f" and {len(pictures):,} loose picture(s)" if pictures else ""
    return UserError(
        f"{train} has {len(classes)} class folder(s){loose}: classification needs two or more classes, laid out as"
        " train/<class>/<picture>.jpg"
    )


def no_test_classes(folder: Path) -> UserError:
    """Returns the error for a test folder without class folders."""
    _, pictures = list_folder(folder)
    what = f"{len(pictures):,} pictures and no class folders" if pictures else "no class folders"
    do = f"sort them into {folder}/<class>/" if pictures else "fill it"
    return UserError(
        f"{folder} has {what}: {do}, or move it elsewhere and hold a share of train/ out with"
        " --config.data.validation_fraction=0.1"
    )


def unknown_class(folder: Path, train: Path, classes: Collection[str]) -> UserError:
    """Returns the error for a class folder of the test split that ``train/`` does not have."""
    reason = f"{folder} is a class that {train} does not have"
    for name in classes:
        if name.casefold() == folder.name.casefold():
            return UserError(f"{reason}, though it has {name}: give both the same name")
    inner, _ = list_folder(folder)
    if any(path.name in classes for path in inner):
        return UserError(f"{reason}; it holds such folders ({_named(inner)}): move them up into {folder.parent}")
    return UserError(f"{reason}: remove one of them")


def no_test_folder(root: Path) -> UserError:
    """Returns the error for a folder with nothing to test on."""
    for folder in list_folder(root)[0]:
        if folder.name.lower() in ("val", "valid", "validation", "test"):
            return UserError(f"{root} has no folder val/, validation/ or test/, but {folder.name}/: rename it to val")
    return UserError(
        f"{root} has no folder val/, validation/ or test/: make one, or hold out a share of the training pictures with"
        " --config.data.validation_fraction=0.1"
    )


def _holds_pictures(folder: Path) -> bool:
    try:
        return bool(list_folder(folder)[1])
    except UserError:  # it may not be read, and need not
        return False


def _named(folders: list[Path]) -> str:
    return ", ".join([folder.name for folder in folders[:_MOST_NAMED]] + ["..."] * (len(folders) > _MOST_NAMED))
