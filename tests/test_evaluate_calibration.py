"""Calibration against cases worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from convnext_jax.evaluate.calibration import brier_scores, equal_mass_bins, equal_width_bins, fit_temperature

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 7, 2000)
LOGITS = RNG.normal(size=(2000, 7)) * 3 + 3 * np.eye(7)[LABELS]
PROBABILITIES = softmax(LOGITS, axis=-1)
CONFIDENCE, CORRECT = PROBABILITIES.max(-1), PROBABILITIES.argmax(-1) == LABELS


def test_calibration_error_of_a_case_worked_by_hand():
    confidence = np.array([0.3, 0.35, 0.6, 0.8, 0.9, 1.0])
    correct = np.array([False, True, True, True, False, True])
    # Of four bins the second holds 0.3 and 0.35, the third 0.6, the fourth the rest.
    expected = (2 * abs(0.5 - 0.325) + 1 * abs(1 - 0.6) + 3 * abs(2 / 3 - 0.9)) / 6
    bins = equal_width_bins(confidence, correct, bins=4)
    assert bins.error == pytest.approx(expected)
    assert bins.count.tolist() == [2, 1, 3]
    # Of three bins of two each:
    expected = (2 * abs(0.5 - 0.325) + 2 * abs(1 - 0.7) + 2 * abs(0.5 - 0.95)) / 6
    assert equal_mass_bins(confidence, correct, bins=3).error == pytest.approx(expected)


def test_a_bin_contains_its_upper_end():
    bins = equal_width_bins(np.array([0.5, 0.500001]), np.array([True, False]), bins=2)
    assert bins.count.tolist() == [1, 1] and bins.accuracy.tolist() == [1.0, 0.0]


def test_calibration_error_bin_by_bin():
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (low < CONFIDENCE) & (CONFIDENCE <= high)
        if inside.any():
            expected += inside.mean() * abs(CORRECT[inside].mean() - CONFIDENCE[inside].mean())
    assert equal_width_bins(CONFIDENCE, CORRECT).error == pytest.approx(expected, rel=1e-12)


def test_bins_of_equal_mass_hold_as_many_examples_each():
    bins = equal_mass_bins(CONFIDENCE, CORRECT)
    assert bins.count.sum() == 2000 and np.ptp(bins.count) <= 1
    assert (np.diff(bins.confidence) > 0).all()
    parts = zip(np.array_split(np.sort(CONFIDENCE), 5), equal_mass_bins(CONFIDENCE, CORRECT, 5).confidence, strict=True)
    assert all(part.mean() == pytest.approx(mean) for part, mean in parts)


def test_the_brier_score_of_two_classes_is_twice_scikit_learn_s():
    probabilities = softmax(LOGITS[:, :2], axis=-1)
    labels = LABELS % 2
    expected = 2 * brier_score_loss(labels, probabilities[:, 1])  # which counts one of the two classes
    assert brier_scores(probabilities, labels).mean() == pytest.approx(expected)


def test_the_brier_score_of_many_classes_is_a_sum_of_squares():
    expected = [
        sum((probability - (number == label)) ** 2 for number, probability in enumerate(row))
        for row, label in zip(PROBABILITIES, LABELS, strict=True)
    ]
    np.testing.assert_allclose(brier_scores(PROBABILITIES, LABELS), expected, rtol=1e-9)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_is_found_that_the_logits_were_divided_by(true: float):
    logits = RNG.normal(size=(50_000, 5)) * 2
    drawn = (softmax(logits, axis=-1).cumsum(-1) < RNG.random((50_000, 1))).sum(-1)
    assert fit_temperature(logits * true, drawn) == pytest.approx(true, rel=0.03)


def test_no_other_temperature_has_a_smaller_loss():
    temperature = fit_temperature(LOGITS, LABELS)
    losses = [
        log_loss(LABELS, softmax(LOGITS / each, axis=-1)) for each in np.geomspace(temperature / 2, 2 * temperature, 41)
    ]
    assert log_loss(LABELS, softmax(LOGITS / temperature, axis=-1)) <= min(losses) + 1e-12
