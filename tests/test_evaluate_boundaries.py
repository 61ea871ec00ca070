"""Boundary F1 against a case by hand, and against distances that SciPy computes class by class."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt

from convnext_jax.data.dataset import IGNORED
from convnext_jax.evaluate import boundaries
from convnext_jax.evaluate.boundaries import BoundarySums, boundary_sums, boundary_tolerance


def blobs(count: int, height: int, width: int, classes: int, seed: int = 0) -> np.ndarray:
    """Masks of rectangles that lie on each other."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        for _ in range(6):
            top, left = rng.integers(0, height), rng.integers(0, width)
            mask[top : top + rng.integers(2, height), left : left + rng.integers(2, width)] = rng.integers(0, classes)
    return masks


def outline(mask: np.ndarray, number: int) -> np.ndarray:
    """Pixels of a class that have another one beside them, by a loop."""
    found = np.zeros(mask.shape, bool)
    for y, x in np.argwhere(mask == number):
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            inside = 0 <= y + down < mask.shape[0] and 0 <= x + right < mask.shape[1]
            found[y, x] |= inside and mask[y + down, x + right] != number
    return found


def reference(truth: np.ndarray, predicted: np.ndarray, classes: int, tolerance: float) -> list[float | None]:
    counts = np.zeros((4, classes), int)
    for true_mask, taken_mask in zip(truth, predicted, strict=True):
        counted = ~binary_dilation(true_mask == IGNORED, np.ones((3, 3)))
        for number in range(classes):
            true, taken = outline(true_mask, number) & counted, outline(taken_mask, number) & counted
            counts[0, number] += true.sum()
            counts[2, number] += taken.sum()
            if true.any() and taken.any():
                counts[1, number] += (distance_transform_edt(~taken)[true] <= tolerance).sum()
                counts[3, number] += (distance_transform_edt(~true)[taken] <= tolerance).sum()
    scores = []
    for true, found, taken, right in counts.T:
        precision, recall = right / max(taken, 1), found / max(true, 1)
        score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        scores.append(score if true + taken else None)
    return scores


def test_a_column_that_is_two_pixels_off_by_hand():
    # Class 1 is the right half of 4x6 pixels in the truth; the prediction begins two columns later, but in the last row
    # only one.
    truth = np.zeros((1, 4, 6), np.uint8)
    predicted = truth.copy()
    truth[0, :, 3:] = 1
    predicted[0, :3, 5:] = 1
    predicted[0, 3, 4:] = 1
    sums = boundary_sums(truth, predicted, 2, tolerance=1.0)
    # True boundary of class 0: column 2, of class 1: column 3, 4 pixels each. Predicted of class 1: column 5 of rows 0
    # to 2, (3, 4) and, as the pixel above (3, 4) is of class 0, no more: (3, 5) has class 1 on all sides.
    assert sums.true.tolist() == [4, 4] and sums.predicted.tolist() == [4, 4]
    # Of class 1, (3, 3) is beside (3, 4). Of class 0 the predicted boundary is column 4 of rows 0 to 2 and (3, 3), and
    # (3, 2) is beside (3, 3).
    assert sums.found.tolist() == [1, 1] and sums.right.tolist() == [1, 1]
    assert sums.f1() == [0.25, 0.25]
    assert boundary_sums(truth, predicted, 2, tolerance=2.0).f1() == [1.0, 1.0]


@pytest.mark.parametrize("tolerance", [1.0, 1.5, math.sqrt(5), 3.7, 40.0])
def test_it_is_what_distances_class_by_class_give(tolerance: float):
    truth, predicted = blobs(7, 13, 19, 4), blobs(7, 13, 19, 4, seed=1)
    truth[::2][np.random.default_rng(2).random(truth[::2].shape) < 0.02] = IGNORED
    truth[3] = IGNORED
    scores = boundary_sums(truth, predicted, 5, tolerance).f1()
    assert scores == pytest.approx(reference(truth, predicted, 5, tolerance))
    assert scores[4] is None and 0 < sum(filter(None, scores)) < 4, "a case in which everything is right tells little"


def test_parts_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch):
    truth, predicted = blobs(9, 16, 16, 3), blobs(9, 16, 16, 3, seed=1)
    whole = boundary_sums(truth, predicted, 3)
    parts = boundary_sums(truth[:4], predicted[:4], 3) + boundary_sums(truth[4:], predicted[4:], 3)
    monkeypatch.setattr(boundaries, "_AT_ONCE", 16 * 16 * 2)
    for other in (parts, boundary_sums(truth, predicted, 3)):
        for name in ("true", "found", "predicted", "right"):
            np.testing.assert_array_equal(getattr(other, name), getattr(whole, name))


def test_what_is_next_to_an_ignored_pixel_counts_nowhere():
    truth = np.zeros((1, 5, 9), np.uint8)
    truth[0, :, 4:] = 1
    predicted = truth.copy()
    assert boundary_sums(truth, predicted, 2).true.tolist() == [5, 5]
    truth[0, 2, 4] = IGNORED  # and rows 1 to 3 of the columns 3 to 5 with it
    sums = boundary_sums(truth, predicted, 2)
    assert sums.true.tolist() == sums.predicted.tolist() == [2, 2] and sums.f1() == [1.0, 1.0]
    truth[0, :, 3:5] = IGNORED  # a band around the object, as Pascal VOC has
    assert boundary_sums(truth, predicted, 2).f1() == [None, None]


def test_a_class_without_a_counterpart_scores_nothing_and_one_that_is_nowhere_has_no_score():
    plain, half = np.zeros((2, 1, 6, 6), np.uint8)
    half[:, 3:] = 1
    assert boundary_sums(half, half, 3).f1() == [1.0, 1.0, None]
    assert boundary_sums(half, plain, 3).f1() == boundary_sums(plain, half, 3).f1() == [0.0, 0.0, None]
    none = np.zeros(2, np.int64)
    assert BoundarySums(none, none, none, none).f1() == [None, None]


def test_the_tolerance_grows_with_the_diagonal():
    assert boundary_tolerance(94, 94) == 1.0 < boundary_tolerance(100, 100) == pytest.approx(0.0075 * 100 * 2**0.5)
    # A boundary that is three pixels off is right in an image of 400x400 pixels and wrong in one of 40x40.
    for side, expected in ((400, 1.0), (40, 0.0)):
        truth, predicted = np.zeros((2, 1, side, side), np.uint8)
        truth[:, :, 20:], predicted[:, :, 23:] = 1, 1
        assert boundary_sums(truth, predicted, 2).f1() == [expected, expected]
