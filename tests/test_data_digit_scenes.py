"""The embedded scenes of digits: fair, the same for everyone, and a mask that fits what is drawn."""

import hashlib

import numpy as np
import pytest

from convnext_jax.config import DataConfig
from convnext_jax.data import Dataset, digit_scenes, load
from convnext_jax.data.digit_scenes import load_digit_scenes, make_scenes
from convnext_jax.data.digits import read_digits


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load(DataConfig("digit_scenes"))


def solid(gray: int = 255, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Digits that are squares of ink, from 0 to count - 1."""
    return np.full((count, 8, 8), gray, np.uint8), np.arange(count, dtype=np.int32)


def test_sizes_and_types(dataset: Dataset) -> None:
    for split, count in ((dataset.train, 4000), (dataset.test, 800)):
        assert split.masks is not None
        assert split.images.shape == (count, 64, 64, 3) and split.masks.shape == (count, 64, 64)
        assert split.images.dtype == split.masks.dtype == np.uint8 and split.labels.dtype == np.int32
        assert not any(array.flags.writeable for array in (split.images, split.labels, split.masks))
        assert np.bincount(split.labels).min() > count / 5 and split.labels.max() == 3
        assert set(np.unique(split.masks)) == set(range(11))
    assert dataset.class_names == ("1 digit", "2 digits", "3 digits", "4 digits")
    assert dataset.mask_names == ("background", *"0123456789")
    assert dataset.describe() == (
        "data: digit_scenes in scikit-learn: train 4,000 pictures, test 800, 4 classes, masks of 11 classes, 64x64x3"
    )
    scaled = dataset.train.images[:, :, :, 0].astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, [scaled.mean()] * 3, rtol=1e-6)
    np.testing.assert_allclose(dataset.std, [scaled.std()] * 3, rtol=1e-6)


def test_the_scenes_never_change(dataset: Dataset) -> None:
    digest = hashlib.sha256()
    for array in (dataset.test.images, dataset.test.masks, dataset.test.labels.astype("<i4")):
        digest.update(np.ascontiguousarray(array).tobytes())
    assert digest.hexdigest() == "54ec3150e229eb878512ccc125c23928eec42cb0557de9a13c28d112199a833e"


def test_a_scene_depends_on_its_number_alone(dataset: Dataset) -> None:
    digits, names, test = read_digits("digit_scenes")
    few = make_scenes(0, 5, digits[~test], names[~test], 64, 3)
    np.testing.assert_array_equal(few.images, dataset.train.images[:5])
    np.testing.assert_array_equal(few.masks, dataset.train.masks[:5])
    other = make_scenes(1, 5, digits[~test], names[~test], 64, 3)
    assert not any((few.images[i] == other.images[i]).all() for i in range(5))


def test_no_digit_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, _, test = read_digits("digit_scenes")
    monkeypatch.setattr(digit_scenes, "read_digits", lambda name: (digits, np.where(test, 7, 3).astype(np.int32), test))
    monkeypatch.setattr(digit_scenes, "TRAIN_SCENES", 100)
    monkeypatch.setattr(digit_scenes, "TEST_SCENES", 100)
    dataset = load_digit_scenes(16, 1)
    assert set(np.unique(dataset.train.masks)) == {0, 4} and set(np.unique(dataset.test.masks)) == {0, 8}


def test_digits_are_brighter_than_their_background(dataset: Dataset) -> None:
    images, digits = dataset.train.images[..., 0].astype(float), dataset.train.masks > 0
    ink = np.where(digits, images, 0).sum((1, 2)) / digits.sum((1, 2))
    background = np.where(digits, 0, images).sum((1, 2)) / (~digits).sum((1, 2))
    assert (ink - background).min() > 30
    noise = np.abs(np.diff(images[:, :4], axis=2)).mean((1, 2))
    assert noise.min() < 1 and noise.max() > 5, "some backgrounds are smooth, and some have grain"


def test_the_class_of_a_pixel_is_that_of_the_ink_which_is_seen() -> None:
    split = make_scenes(0, 200, *solid(), 64, 1)
    gray, masks = split.images[..., 0], split.masks
    assert masks is not None
    np.testing.assert_array_equal(gray >= 150, masks > 0)
    overlapping = 0
    for image, mask, label in zip(gray, masks, split.labels, strict=True):
        classes = np.unique(mask[mask > 0])
        if len(classes) == label + 1:  # no digit is there twice
            assert all(len(np.unique(image[mask == number])) == 1 for number in classes)
            areas = np.bincount(mask.reshape(-1))[classes]
            overlapping += any(np.sqrt(area) % 1 for area in areas)
    assert overlapping > 5, "some digits lie on others"


@pytest.mark.parametrize(("ink", "covered"), [(127, False), (128, True)])
def test_ink_that_covers_half_of_a_pixel_gives_it_its_class(ink: int, covered: bool) -> None:
    masks = make_scenes(0, 4, *solid(ink), 64, 1).masks
    assert masks is not None and masks.any() == covered


def test_digits_hide_little_of_each_other() -> None:
    split = make_scenes(0, 1000, *solid(), 64, 1)
    assert split.masks is not None
    areas = np.stack([np.bincount(mask.reshape(-1), minlength=11)[1:] for mask in split.masks])  # [N,10]
    assert areas[areas > 0].min() > 14 * 14 / 2, "of each, more than half can be seen"
    one, *more = (areas[split.labels == label].sum(1).mean() for label in range(4))
    np.testing.assert_allclose([mean / one for mean in more], [2, 3, 4], rtol=0.04)


def test_another_size_shows_the_same_scenes() -> None:
    digits, names, _ = read_digits("digit_scenes")
    small, large = (make_scenes(0, 50, digits, names, size, 1) for size in (64, 128))
    assert small.masks is not None and large.masks is not None
    assert (small.masks == large.masks[:, 1::2, 1::2]).mean() > 0.97
    assert small.masks.any(axis=(1, 2)).all()
    assert make_scenes(0, 2, digits, names, 1, 1).images.shape == (2, 1, 1, 1)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_the_same_gray(channels: int, dataset: Dataset) -> None:
    digits, names, test = read_digits("digit_scenes")
    images = make_scenes(0, 5, digits[~test], names[~test], 64, channels).images
    colors = 3 if channels == 4 else 1
    np.testing.assert_array_equal(images[..., :colors], dataset.train.images[:5, ..., :colors])
    assert images.shape[-1] == channels and (channels == 1 or (images[..., -1] == 255).all())


def test_a_share_is_held_out_with_its_masks(dataset: Dataset) -> None:
    split = load(DataConfig("digit_scenes", validation_fraction=0.25))
    assert split.validation is not None and (len(split.train), len(split.validation)) == (3000, 1000)
    assert split.mask_names == dataset.mask_names
    known = {i.tobytes(): m.tobytes() for i, m in zip(dataset.train.images, dataset.train.masks, strict=True)}
    for part in (split.train, split.validation):
        assert part.masks is not None and not part.masks.flags.writeable
        assert all(known[i.tobytes()] == m.tobytes() for i, m in zip(part.images, part.masks, strict=True))
