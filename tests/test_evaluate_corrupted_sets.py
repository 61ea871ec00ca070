"""Reading CIFAR-10-C, ImageNet-C and the like, and what is said of folders that are not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_jax.errors import UserError
from convnext_jax.evaluate.corrupted_sets import read_corrupted_set

NAMES = ("cat", "dog", "old crane (n3)", "toad")
SHAPE = (8, 8, 3)
LABELS = np.array([2, 0, 3, 1, 1, 0], np.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), np.uint8)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    np.save(tmp_path / "labels.npy", np.tile(LABELS, 5))
    np.save(tmp_path / "snow.npy", IMAGES)
    np.save(tmp_path / "fog.npy", IMAGES[::-1])
    np.save(tmp_path / "spatter.npy", 255 - IMAGES)
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Of each class two pictures at each severity, of the color (label, severity, number)."""
    for severity in range(1, 6):
        for label, name in enumerate(NAMES):
            folder = tmp_path / "contrast" / str(severity) / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8), (label, severity, number)).save(folder / f"{number}.png")
            (folder / ".hidden.png").write_text("no picture")
            (folder / "notes.txt").write_text("no picture")
    return tmp_path


def test_arrays_are_cut_into_their_severities(arrays: Path):
    parts = list(read_corrupted_set(arrays, NAMES, SHAPE))
    # In the paper's order, without spatter, which is not one of the 15.
    assert [(part.corruption, part.severity) for part in parts] == [
        (name, severity) for name in ("snow", "fog") for severity in range(1, 6)
    ]
    for part in parts:
        images = IMAGES if part.corruption == "snow" else IMAGES[::-1]
        np.testing.assert_array_equal(part.images, images[6 * (part.severity - 1) :][:6])
        np.testing.assert_array_equal(part.labels, LABELS)
        assert part.labels.dtype == np.int32 and isinstance(part.images, np.memmap)


def test_labels_may_be_given_once_for_all_severities(arrays: Path):
    np.save(arrays / "labels.npy", LABELS.astype(np.int64))
    for part in read_corrupted_set(arrays, NAMES, SHAPE):
        np.testing.assert_array_equal(part.labels, LABELS)


def test_corruptions_are_chosen_by_name(arrays: Path):
    parts = list(read_corrupted_set(arrays, NAMES, SHAPE, corruptions=["spatter"]))
    assert [part.corruption for part in parts] == ["spatter"] * 5


def test_pictures_get_the_label_of_their_folder_s_name(pictures: Path):
    parts = list(read_corrupted_set(pictures, NAMES, SHAPE))
    assert [(part.corruption, part.severity) for part in parts] == [("contrast", severity) for severity in range(1, 6)]
    for part in parts:
        np.testing.assert_array_equal(part.labels, [0, 0, 1, 1, 2, 2, 3, 3])
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)
        np.testing.assert_array_equal(part.images[:, 7, 7, 2], [0, 1] * 4)
        assert (part.images[..., 1] == part.severity).all()


def test_pictures_of_another_size_are_resized_and_gray_ones_stay_gray(pictures: Path):
    part = next(read_corrupted_set(pictures, NAMES, (4, 4, 1)))
    assert part.images.shape == (8, 4, 4, 1) and part.images.dtype == np.uint8


def test_wordnet_identifiers_are_translated_by_words_txt(pictures: Path):
    identifiers = {"cat": "n1", "dog": "n2", "old crane (n3)": "n3", "toad": "n4"}
    for folder in (pictures / "contrast").iterdir():
        for name, identifier in identifiers.items():
            (folder / name).rename(folder / identifier)
    with pytest.raises(
        UserError, match=r"1/n1 is no class of the network; its classes are cat, dog, old crane \(n3\) "
    ):
        read_corrupted_set(pictures, NAMES, SHAPE)
    (pictures / "words.txt").write_text("n0\tbird\nn1\tcat\nn2\tdog\nn3\told crane\nn4\ttoad\nn5\told crane\n")
    for part in read_corrupted_set(pictures, NAMES, SHAPE):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0], part.labels)


def test_a_folder_that_is_none_or_holds_nothing(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere is no folder: name the one of CIFAR-10-C"):
        read_corrupted_set(tmp_path / "nowhere", NAMES, SHAPE)
    with pytest.raises(UserError, match="has neither <corruption>.npy nor <corruption>/<severity>/<class>/"):
        read_corrupted_set(tmp_path, NAMES, SHAPE)


def test_missing_labels_and_corruptions_are_named(arrays: Path):
    with pytest.raises(UserError, match="has no corruption 'frost': .*allowed: snow, fog, spatter"):
        read_corrupted_set(arrays, NAMES, SHAPE, corruptions=["frost"])
    with pytest.raises(UserError, match="no corruption 'frots': did you mean 'frost'"):
        read_corrupted_set(arrays, NAMES, SHAPE, corruptions=["frots"])
    (arrays / "labels.npy").unlink()
    with pytest.raises(UserError, match="has no labels.npy: it belongs to the set"):
        read_corrupted_set(arrays, NAMES, SHAPE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS % 3, "has the classes 0 to 2, and the network 0 to 3"),
        (LABELS + 1, "has the classes 1 to 4, and the network 0 to 3"),
        (LABELS[None], r"is uint8 \[1,6\]: labels are whole numbers, \[N\]"),
        (LABELS * 1.0, r"is float64 \[6\]: labels are whole numbers"),
        (LABELS[:5], "has 30 images for five severities, and labels.npy 5 labels"),
        (np.array([None, "code"]), "labels.npy is no NumPy array, or cut short .*objects"),
    ],
)
def test_labels_of_other_classes_or_forms_are_refused(arrays: Path, labels: np.ndarray, message: str):
    np.save(arrays / "labels.npy", labels)
    with pytest.raises(UserError, match=message):
        read_corrupted_set(arrays, NAMES, SHAPE)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, :4], r"fog.npy is uint8 \[30,4,8,3\]: the network takes uint8 \[N,8,8,3\]"),
        (IMAGES / 255, r"fog.npy is float64 \[30,8,8,3\]: the network takes uint8"),
        (IMAGES[:28], "fog.npy has 28 images for five severities"),
    ],
)
def test_images_of_another_form_are_refused(arrays: Path, images: np.ndarray, message: str):
    np.save(arrays / "fog.npy", images)
    with pytest.raises(UserError, match=message):
        read_corrupted_set(arrays, NAMES, SHAPE)


def test_an_array_that_is_cut_short_or_none_is_named(arrays: Path):
    whole = (arrays / "fog.npy").read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", b"PK\x03\x04"):
        (arrays / "fog.npy").write_bytes(damaged)
        with pytest.raises(UserError, match="fog.npy is no NumPy array, or cut short"):
            read_corrupted_set(arrays, NAMES, SHAPE)


def test_incomplete_folders_of_pictures_are_named(pictures: Path):
    with pytest.raises(UserError, match="1/toad is no class of the network"):
        read_corrupted_set(pictures, NAMES[:3], SHAPE)
    with pytest.raises(UserError, match="lacks 1 of the network's classes, such as 'zebra'"):
        read_corrupted_set(pictures, (*NAMES, "zebra"), SHAPE)
    with pytest.raises(UserError, match="16x8 pixels: pictures are cropped to squares"):
        read_corrupted_set(pictures, NAMES, (8, 16, 3))
    (pictures / "contrast" / "5").rename(pictures / "contrast" / "6")
    with pytest.raises(UserError, match="contrast/5 is missing: a corruption has the folders 1 to 5"):
        read_corrupted_set(pictures, NAMES, SHAPE)


def test_a_picture_that_cannot_be_read_is_named(pictures: Path):
    (pictures / "contrast" / "2" / "dog" / "1.png").write_bytes(b"no picture")
    parts = read_corrupted_set(pictures, NAMES, SHAPE)
    assert next(parts).severity == 1
    with pytest.raises(UserError, match=r"2/dog/1.png cannot be read \(no picture of a kind that is read\)"):
        next(parts)
