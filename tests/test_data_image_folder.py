"""Pictures of the user's own: what is found, how it is resized, and what each mistake gets."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_jax.config import DataConfig
from convnext_jax.data import Dataset, load
from convnext_jax.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes with four training and two validation pictures each, all of 8x8 pixels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            for index in range(count):
                _save(tmp_path / "pictures" / split / name / f"{index}.png", index)
    return tmp_path / "pictures"


def _pixels(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _save(path: Path, seed: int, height: int = 8, width: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(seed, height, width)).save(path)


def _load(root: Path, size: int | None = None, fraction: float = 0.0) -> Dataset:
    config = DataConfig(name="image_folder", data_dir=str(root), image_size=size, validation_fraction=fraction)
    return load(config)


def _cached_files(root: Path) -> dict[Path, int]:
    """The files in the user's cache, with the times of their last change."""
    files = [path for path in (root.parent / "cache").rglob("*.*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("validation", ["val", "validation", "test"])
def test_a_tree_with_a_validation_folder(root: Path, validation: str) -> None:
    (root / "val").rename(root / validation)
    dataset = _load(root)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.train.images[6], _pixels(2))


def test_suffixes_in_any_case_and_formats(root: Path) -> None:
    for suffix in ("JPG", "jpeg", "JPEG", "jfif", "WEBP", "Png", "gif", "BMP", "tif", "tiff", "ppm", "mpo"):
        _save(root / "train" / "cat" / f"more.{suffix}", 9)
    Image.fromarray(_pixels(5)[..., 0]).save(root / "train" / "dog" / "gray.png")
    (root / "train" / "dog" / "notes.txt").write_text("not a picture")
    (root / "train" / "dog" / "._0.png").write_text("what a file manager left")
    (root / "train" / ".thumbnails").mkdir()
    dataset = _load(root)
    assert np.bincount(dataset.train.labels).tolist() == [16, 5]
    gray = np.repeat(_pixels(5)[..., :1], 3, axis=-1)
    assert any((image == gray).all() for image in dataset.train.images)


def test_a_fraction_is_held_out_of_every_class(root: Path) -> None:
    shutil.rmtree(root / "val")
    dataset = _load(root, fraction=0.25)
    assert np.bincount(dataset.train.labels).tolist() == [3, 3]
    assert np.bincount(dataset.test.labels).tolist() == [1, 1]
    again = _load(root, fraction=0.25)
    np.testing.assert_array_equal(dataset.test.images, again.test.images)
    assert len(_load(root, fraction=0.5).test) == 4, "another fraction is another data set"


def test_with_a_test_folder_a_fraction_of_train_is_validation(root: Path) -> None:
    whole = _load(root)
    cached = _cached_files(root)
    dataset = _load(root, fraction=0.5)
    assert cached and _cached_files(root) == cached, "what is decoded stays decoded"
    assert dataset.validation is not None
    assert np.bincount(dataset.train.labels).tolist() == np.bincount(dataset.validation.labels).tolist() == [2, 2]
    np.testing.assert_array_equal(dataset.test.images, whole.test.images)
    parts = np.concatenate([dataset.train.images, dataset.validation.images])
    assert {image.tobytes() for image in parts} == {image.tobytes() for image in whole.train.images}


def test_without_one_the_fraction_is_the_test_split(root: Path) -> None:
    shutil.rmtree(root / "val")
    assert _load(root, fraction=0.5).validation is None


def test_validation_follows_the_names_of_the_files(root: Path) -> None:
    before = _load(root, fraction=0.5).validation
    # They come first by name and last by its hash: every other picture moves two places, and none out of its split.
    for name in ("-3.png", "-4.png"):
        _save(root / "train" / "cat" / name, 50)
    after = _load(root, fraction=0.4).validation
    assert before is not None and after is not None and len(after) == 4
    np.testing.assert_array_equal(after.images[2:], before.images[2:])
    assert [image.tobytes() for image in after.images[:2]] == [image.tobytes() for image in before.images[:2]]


def test_resizing_keeps_the_shorter_side_and_cuts_the_center(root: Path) -> None:
    for path in root.glob("*/*/*.png"):
        picture = np.zeros((20, 60, 3), np.uint8)
        picture[:, 20:40] = 255  # the center square
        Image.fromarray(picture).save(path)
    images = _load(root, size=10).train.images
    assert images.shape == (8, 10, 10, 3)
    assert images[:, :, 2:8].min() == 255
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    for path in root.glob("*/*/*.png"):
        Image.fromarray(checks.astype(np.uint8)).save(path)
    fine = _load(root, size=16).train.images
    assert abs(fine.astype(int) - 127).max() < 30, "antialiased: fine checks become gray"


def test_a_changed_picture_is_seen(root: Path) -> None:
    _load(root)
    _save(root / "train" / "cat" / "0.png", 77)
    np.testing.assert_array_equal(_load(root).train.images[0], _pixels(77))


def test_pictures_of_several_sizes_need_a_size(root: Path) -> None:
    _save(root / "train" / "dog" / "1.png", 0, height=9, width=12)
    with pytest.raises(UserError, match=r"1.png has 12x9 pixels .* 8x8: give one size.*image_size=64"):
        _load(root)
    assert _load(root, size=8).train.images.shape == (8, 8, 8, 3)


def test_train_and_validation_of_two_sizes_need_a_size(root: Path) -> None:
    for path in root.glob("val/*/*.png"):
        _save(path, 0, 9, 9)
    with pytest.raises(UserError, match="train and test images differ in size"):
        _load(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "3.png is empty .0 bytes.: replace or remove it"),
        (b"no picture at all", "3.png cannot be read .*: replace or remove it"),
        (None, "3.png cannot be read .*: replace or remove it"),
    ],
)
def test_an_unusable_picture_is_named(root: Path, content: bytes | None, message: str) -> None:
    path = root / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:80] if content is None else content)
    with pytest.raises(UserError, match=message) as caught:
        _load(root)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_one_picture_of_a_class_that_is_to_be_split(root: Path) -> None:
    shutil.rmtree(root / "val")
    for path in (root / "train" / "dog").glob("[123].png"):
        path.unlink()
    with pytest.raises(UserError, match="train/dog has one picture"):
        _load(root, fraction=0.5)


# --- what is found and what is left out


def test_pictures_lie_at_any_depth(root: Path) -> None:
    before = _load(root, fraction=0.5).validation
    for name, seed in (("b/1.png", 20), ("a/z/1.png", 21), ("a/y.png", 22)):
        _save(root / "train" / "cat" / name, seed)
    dataset = _load(root)
    # First those of the folder itself, then folder by folder, as os.walk has them when sorted.
    order = [
        Path(folder) / name for folder, _, names in sorted(os.walk(root / "train" / "cat")) for name in sorted(names)
    ]
    expected = np.stack([np.asarray(Image.open(path)) for path in order])
    np.testing.assert_array_equal(dataset.train.images[:7], expected)
    assert dataset.train.labels.tolist() == [0] * 7 + [1] * 4 and not dataset.left_out
    after = _load(root, fraction=0.5).validation
    assert before is not None and after is not None and len(after) > len(before)


def test_two_pictures_of_one_name_in_two_folders_are_two(root: Path) -> None:
    shutil.rmtree(root / "val")
    for index in range(12):
        _save(root / "train" / "cat" / f"{index}" / "same.png", 100 + index)
    dataset = _load(root, fraction=0.5)
    assert np.bincount(dataset.test.labels).tolist() == np.bincount(dataset.train.labels).tolist() == [8, 2]


def test_links_are_followed_and_never_in_a_circle(root: Path, tmp_path: Path) -> None:
    _save(tmp_path / "elsewhere" / "8.png", 8)
    cat = root / "train" / "cat"
    (cat / "linked").symlink_to(tmp_path / "elsewhere")
    (cat / "linked.png").symlink_to(tmp_path / "elsewhere" / "8.png")
    (tmp_path / "elsewhere" / "again").symlink_to(cat)
    (cat / "all").symlink_to(root / "train")
    dataset = _load(root)
    assert np.bincount(dataset.train.labels).tolist() == [6, 4]
    assert dataset.left_out == {"links back to a folder": 2}


def test_what_is_left_out_is_counted_by_reason(root: Path) -> None:
    cat = root / "train" / "cat"
    for name in ("a.txt", "b.TXT", "notes", "c.heic", "._1.png", ".DS_Store", "odd.a suffix with spaces"):
        (cat / name).write_text("no picture")
    (cat / "gone.png").symlink_to(root / "nowhere.png")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    os.mkfifo(cat / "pipe.png")
    _save(cat / ".hidden" / "deep" / "0.png", 0)
    _save(root / "train" / "loose.png", 0)
    _save(root / "test" / "cat" / "0.png", 0)
    (root / "README.md").write_text("beside the splits")
    expected = {
        ".txt": 2,
        "without a suffix": 1,
        ".heic": 1,
        "of other kinds": 1,
        "hidden": 3,
        "broken links": 2,
        "no files": 1,
        "outside of the class folders": 1,
        "in test/, which is not used": 1,
    }
    for _ in range(2):  # decoded, and from the cache
        dataset = _load(root, fraction=0.25)
        assert dataset.left_out == expected
        assert dataset.describe() == (
            f"data: image_folder in {root}: train 6 pictures, validation 2, test 4, 2 classes, 8x8x3; left out 13 files"
            " (3 hidden, 2 .txt, 2 broken links, 1 .heic, 1 in test/, which is not used, 4 of other kinds)"
        )


@pytest.mark.parametrize("name", ["Müller's cat", "猫", "a b  c", "x.y"])
def test_class_names_may_be_any_text(root: Path, name: str) -> None:
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / name)
    assert _load(root).class_names == tuple(sorted([name, "dog"]))


def test_names_that_differ_in_how_unicode_writes_them_are_one_class(root: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "épée") for form in ("NFC", "NFD"))
    assert composed != decomposed
    (root / "train" / "cat").rename(root / "train" / decomposed)
    (root / "val" / "cat").rename(root / "val" / composed)
    dataset = _load(root)
    assert dataset.class_names == ("dog", composed), "sorted by the name that is shown, not by that of the folder"
    assert np.bincount(dataset.test.labels).tolist() == [2, 2]
    (root / "train" / "dog").rename(root / "train" / composed)
    with pytest.raises(UserError, match="train has two class folders épée, written in two ways in Unicode: make them"):
        _load(root)


def test_a_name_that_is_no_text_is_refused(root: Path) -> None:
    os.rename(root / "train" / "cat", os.fsencode(root / "train") + b"/c\xe4t")
    with pytest.raises(UserError, match=r"train/c.udce4t' has a name that is not UTF-8: rename it"):
        _load(root)


def _state(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}


@pytest.mark.parametrize("mode", [0o755, 0o555])
def test_the_folder_itself_stays_untouched(root: Path, mode: int) -> None:
    root.chmod(mode)
    before = _state(root)
    for _ in range(2):
        images = _load(root).train.images
        assert isinstance(images, np.memmap)
        assert str(images.filename).startswith(str(root.parent / "cache" / "convnext_jax"))
    _load(root, size=4)
    assert _state(root) == before


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_pictures_have_the_channels_that_are_asked_for(root: Path, channels: int | None) -> None:
    path = root / "train" / "cat" / "0.png"
    Image.fromarray(np.full((8, 8, 4), (90, 90, 90, 0), np.uint8)).save(path)
    dataset = load(DataConfig(name="image_folder", data_dir=str(root), channels=channels))
    assert dataset.train.images.shape == (8, 8, 8, channels or 3)
    assert dataset.mean.shape == dataset.std.shape == (channels or 3,)
    seen = {None: [255] * 3, 1: [255], 2: [90, 0], 3: [255] * 3, 4: [90, 90, 90, 0]}[channels]
    assert dataset.train.images[0, 0, 0].tolist() == seen
