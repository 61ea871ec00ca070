"""Folders of pictures that are laid out in another way: each gets one line with what to do."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".png"):
            Image.new("RGB", (4, 4)).save(root / file)
        else:
            (root / file).touch()
    return root


TWO = ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "train/dog/1.png")

MISTAKES = {
    "no folder": (
        (),
        "/missing",
        "/missing does not exist: name the folder that holds train/ with --config.data.data_",
    ),
    "a zip file": (
        ("photos.zip",),
        "/photos.zip",
        "photos.zip is a file: unpack it, and name its folder with --config",
    ),
    "letter case": (("Train/cat/0.png",), "", "has no folder train/, but Train/: rename it to train"),
    "a folder too high": (TWO, "/..", "but .*photos has: name that with --config.data.data_dir=.*photos$"),
    "a folder too low": (TWO, "/train", "it is one: name the folder above it with --config.data.data_dir=.*photos$"),
    "classes without a split": (
        ("cat/0.png", "cow/0.png", "dog/0.png", "emu/0.png"),
        "",
        r"class folders \(cat, cow, dog, ...\): move them into .*photos/train/, and .*validation_fraction=0.1$",
    ),
    "pictures only": (("0.png", "1.png"), "", "but 2 pictures: move them into train/<class>/"),
    "nothing": (("0.txt",), "", "has no folder train/: lay the pictures out as train/<class>/<picture>.jpg"),
    "a folder twice": (
        ("train/train/cat/0.png", "train/train/dog/0.png"),
        "",
        r"photos/train has one folder, train/: move up the folders in it \(cat, dog\)",
    ),
    "one class": (("train/cat/0.png",), "", r"photos/train has 1 class folder\(s\): classification needs two or more"),
    "a flat train": (
        ("train/0.png", "train/1.png"),
        "",
        r"has 0 class folder\(s\) and 2 loose picture\(s\): classific",
    ),
    "a flat val": (
        (*TWO, "val/0.png", "val/1.png", "val/2.png"),
        "",
        "photos/val has 3 pictures and no class folders: sort them into .*photos/val/<class>/, or move it elsewhere and"
        " hold a share of train/ out with --config.data.validation_fraction=0.1",
    ),
    "an empty val": ((*TWO, "val/x.txt"), "", "photos/val has no class folders: fill it, or move it elsewhere"),
    "no val": (TWO, "", "no folder val/, validation/ or test/: make one, or hold out .*validation_fraction=0.1"),
    "another name of val": ((*TWO, "valid/cat/0.png"), "", "or test/, but valid/: rename it to val"),
    "a class of val only": ((*TWO, "val/emu/0.png"), "", "val/emu is a class that .*train does not have: remove one"),
    "letter case of a class": (
        (*TWO, "val/Cat/0.png"),
        "",
        "val/Cat is a class .*, though it has cat: give both the sam",
    ),
    "val twice": (
        (*TWO, "val/val/cat/0.png", "val/val/dog/0.png"),
        "",
        r"val/val is a class .*; it holds such folders \(cat, dog\): move them up into .*photos/val$",
    ),
    "an empty class": (
        (*TWO, "train/emu/a.heic", "train/emu/b.heic"),
        "",
        "train/emu has no pictures, only 2 .heic: fill",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_has_one_line_with_the_remedy(tmp_path: Path, name: str) -> None:
    files, given, message = MISTAKES[name]
    root = Path(f"{make(tmp_path / 'photos', *files)}{given}").resolve()
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(name="image_folder", data_dir=str(root)))
    assert "\n" not in str(caught.value)


def test_the_remedies_are_right(tmp_path: Path) -> None:
    root = make(tmp_path / "photos", *(file.removeprefix("train/") for file in TWO))
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        shutil.move(root / name, root / "train" / name)
    config = DataConfig(name="image_folder", data_dir=str(root), validation_fraction=0.1)
    assert load(config).describe() == f"data: image_folder in {root}: train 2 pictures, test 2, 2 classes, 4x4x3"


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, listed = make(tmp_path / "photos", *TWO), os.scandir

    def scandir(path: Path) -> object:  # the superuser, who may run this, could read it
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(
        UserError, match=r"folder .*train/dog cannot be read \(Permission denied\): change its permissions"
    ):
        load(DataConfig(name="image_folder", data_dir=str(root), validation_fraction=0.5))


def test_without_a_folder_it_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"name the folder .* --config\.data\.data_dir"):
        load(DataConfig(name="image_folder"))
