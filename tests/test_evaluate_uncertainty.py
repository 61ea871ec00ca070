"""Intervals against their theory, and paired comparisons against statistics worked by hand."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from convnext_jax.evaluate.uncertainty import interval_of_mean, paired_comparison

RNG = np.random.default_rng(0)


def test_the_interval_of_an_accuracy_is_that_of_a_binomial():
    correct = np.arange(1000) < 700
    low, high = binom.ppf([0.025, 0.975], 1000, 0.7) / 1000
    assert interval_of_mean(correct.astype(float)) == pytest.approx([low, high], abs=0.004)


def test_the_interval_of_a_loss_is_that_of_the_central_limit():
    losses = RNG.exponential(size=4000)
    half = norm.ppf(0.975) * losses.std() / np.sqrt(4000)
    assert interval_of_mean(losses) == pytest.approx([losses.mean() - half, losses.mean() + half], abs=0.15 * half)


def test_the_same_examples_give_the_same_interval():
    losses = RNG.exponential(size=100)
    assert interval_of_mean(losses) == interval_of_mean(losses)


def test_a_paired_comparison_worked_by_hand():
    # 10 examples that both are right about, 1 that only the first is, 6 that only the second is, 3 that neither is.
    first = np.array([True] * 11 + [False] * 9)
    second = np.array([True] * 10 + [False] + [True] * 6 + [False] * 3)
    compared = paired_comparison(first, second)
    assert (compared["only_first"], compared["only_second"]) == (1, 6)
    assert compared["difference"] == pytest.approx(5 / 20)
    # Of 7 coins, at most one or at least six heads: 2 (1 + 7) / 2^7.
    assert compared["p_value"] == pytest.approx(16 / 128)
    low, high = compared["interval"]
    assert low < 0.25 < high


def test_the_interval_of_a_difference_is_narrower_for_models_that_agree():
    difficult = RNG.random(2000) < 0.3
    first, second = ~difficult, ~difficult | (RNG.random(2000) < 0.05)
    widths = [np.ptp(paired_comparison(first, other)["interval"]) for other in (second, RNG.permutation(second))]
    assert widths[0] < 0.5 * widths[1]


def test_two_equal_models_do_not_differ():
    correct = RNG.random(50) < 0.5
    assert paired_comparison(correct, correct) == {
        "difference": 0.0,
        "interval": [0.0, 0.0],
        "only_first": 0,
        "only_second": 0,
        "p_value": 1.0,
    }
