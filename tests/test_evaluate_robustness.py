"""Robustness figures of classifiers that are so simple that their answers can be worked out."""

import json

import numpy as np
import pytest
from photographs import photographs
from scipy import ndimage

from convnext_jax.errors import UserError
from convnext_jax.evaluate.corruptions.registry import CORRUPTIONS
from convnext_jax.evaluate.displacements import scale, translate
from convnext_jax.evaluate.predictions import Change
from convnext_jax.evaluate.robustness import (
    CorruptedPart,
    Predict,
    measure_corrupted_set,
    measure_robustness,
    summarize_corruptions,
)

SHAPE = (16, 16, 3)
# One bright pixel each, in rows 5 to 10; the class is the row.
ROWS = np.arange(5, 11)
IMAGES = np.zeros((len(ROWS), *SHAPE), np.uint8)
IMAGES[np.arange(len(ROWS)), ROWS, 8] = 200


def predictor(classify, images: np.ndarray = IMAGES) -> Predict:
    numbers = np.arange(len(images), dtype=np.int32)
    return lambda change: classify(images if change is None else np.asarray(change(images, numbers)))


def brightest_row(images: np.ndarray) -> np.ndarray:
    return images.sum((2, 3), dtype=np.int64).argmax(1)


def test_a_classifier_by_row_survives_half_of_the_shifts():
    found = measure_robustness(predictor(brightest_row), ROWS, SHAPE, corruptions=["brightness"])
    assert found["examples"] == 6 and found["top1"] == 1.0
    assert found["translation"]["0"] == {"top1": 1.0, "consistency": 1.0}
    for distance in "1234":  # left and right change nothing, up and down everything
        assert found["translation"][distance] == {"top1": 0.5, "consistency": 0.5}
    assert found["scale"]["1.0"] == {"top1": 1.0, "consistency": 1.0}
    assert list(found["scale"]) == ["0.7", "0.8", "0.9", "1.0", "1.1", "1.2", "1.3"]
    # About the center, 7.5, rows 5 and 10 move by three quarters of a pixel, and the others by less than half.
    assert found["scale"]["1.3"] == {"top1": 4 / 6, "consistency": 4 / 6}
    assert json.loads(json.dumps(found)) == found


def test_consistency_is_with_the_prediction_and_accuracy_with_the_label():
    wrong = (ROWS + 1) % 11
    found = measure_robustness(predictor(brightest_row), wrong, SHAPE, corruptions=["brightness"])
    assert found["top1"] == 0.0
    assert found["translation"]["1"] == {"top1": 0.25 * 5 / 6, "consistency": 0.5}  # down by one is right, but for one


def test_each_corruption_is_a_mean_over_its_severities():
    def is_bright(images: np.ndarray) -> np.ndarray:
        return (images.max((1, 2, 3)) >= 225).astype(int)

    # Brightness adds 12, 25, 38, 51 and 76 to 200: two of the severities stay below 225, or at 225.
    labels = np.zeros(len(IMAGES), int)
    found = measure_robustness(predictor(is_bright), labels, SHAPE, corruptions=["brightness"])["corruptions"]
    assert found["by_severity"] == {"brightness": {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0, "5": 0.0}}
    assert found["top1"] == {"brightness": 0.2}
    assert (found["mean_top1"], found["mean_error"], found["relative_drop"]) == (0.2, 0.8, 0.8)
    assert found["missing"] == [name for name in CORRUPTIONS if name != "brightness"]


def test_all_corruptions_are_asked_for_at_all_severities():
    asked: list[Change | None] = []

    def predict(change: Change | None) -> np.ndarray:
        asked.append(change)
        return ROWS

    found = measure_robustness(predict, ROWS, SHAPE)
    assert len(asked) == 1 + 15 * 5 + 4 * 4 + 6 and asked.count(None) == 1
    assert found["corruptions"]["missing"] == [] and found["corruptions"]["relative_drop"] == 0.0
    assert all(list(each) == ["1", "2", "3", "4", "5"] for each in found["corruptions"]["by_severity"].values())


def test_without_a_clean_accuracy_there_is_no_relative_drop():
    assert "relative_drop" not in summarize_corruptions({"fog": {1: 0.5}}, clean=None)
    assert "relative_drop" not in summarize_corruptions({"fog": {1: 0.5}}, clean=0.0)


def test_a_set_of_the_user_is_measured_part_by_part():
    parts = [
        CorruptedPart("fog", 1, IMAGES, ROWS),
        CorruptedPart("fog", 2, IMAGES[:, ::-1], ROWS),  # row r is then row 15 - r
        CorruptedPart("snow", 1, IMAGES, np.where(ROWS < 8, ROWS, 0)),
    ]
    found = measure_corrupted_set(brightest_row, parts, clean=1.0)
    assert found["by_severity"] == {"fog": {"1": 1.0, "2": 0.0}, "snow": {"1": 0.5}}
    assert found["mean_top1"] == 0.5 and found["relative_drop"] == 0.5
    assert len(found["missing"]) == 13


@pytest.mark.parametrize(("down", "right"), [(0, 3), (-2, 0), (4, -4), (0, 0)])
def test_a_shift_repeats_the_edge(down: int, right: int):
    images = photographs(16, 20)
    expected = ndimage.shift(images, (0, down, right, 0), order=0, mode="nearest")
    np.testing.assert_array_equal(translate(down, right)(images, np.arange(12)), expected)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_a_change_of_scale_is_scipy_s(factor: float):
    images = photographs(16, 20)
    center = np.array([7.5, 9.5, 0.0])
    inverse = np.array([1 / factor, 1 / factor, 1.0])
    offset = center - inverse * center
    expected = [
        ndimage.affine_transform(image.astype(np.float64), inverse, offset, order=1, mode="nearest") for image in images
    ]
    found = np.asarray(scale(factor)(images, np.arange(12)))
    assert np.abs(found - np.stack(expected)).max() <= 0.5 + 1e-3  # the nearest level
    if factor == 1.0:
        np.testing.assert_array_equal(found, images)


def test_mistakes_are_named_before_the_first_prediction():
    def predict(change: Change | None) -> np.ndarray:
        raise AssertionError("nothing is to be predicted")

    with pytest.raises(UserError, match="no corruption 'snowy': did you mean 'snow'"):
        measure_robustness(predict, ROWS, SHAPE, corruptions=["fog", "snowy"])
    with pytest.raises(UserError, match="name at least one corruption: gaussian_noise, "):
        measure_robustness(predict, ROWS, SHAPE, corruptions=[])
    with pytest.raises(UserError, match="these have 4 channels"):
        measure_robustness(predict, ROWS, (16, 16, 4))
    with pytest.raises(UserError, match="factor=0: must be greater than 0"):
        scale(0)
