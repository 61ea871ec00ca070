"""Two recipes with several seeds each, compared by their accuracies."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from convnext_jax.data.dataset import Split
from convnext_jax.evaluate.comparison import Group, compare
from convnext_jax.evaluate.offline import Evaluation, Selection

LABELS = np.zeros(1000, np.int32)


def group(name: str, *accuracies: float, data: str = "digits") -> Group:
    run: Any = SimpleNamespace(record=SimpleNamespace(name=data))
    examples, unused = Split(np.zeros((1000, 1, 1, 1), np.uint8), LABELS), SimpleNamespace()
    made = []
    for accuracy in accuracies:
        logits = np.stack([np.arange(1000) < 1000 * accuracy, np.full(1000, 0.5)], axis=-1).astype(np.float32)
        figures = {"top1": accuracy}
        made.append(Evaluation(run, 1, Selection(), unused, {}, {}, examples, figures, logits, None))  # type: ignore
    return Group(name, tuple(made))


def test_seeds_are_compared_by_welch():
    first, second = (0.70, 0.72, 0.71), (0.80, 0.81, 0.84)
    compared = compare(group("a", *first), group("b", *second))
    assert compared is not None
    variances = [np.var(each, ddof=1) / 3 for each in (first, second)]
    degrees = sum(variances) ** 2 / sum(variance**2 / 2 for variance in variances)
    half = t.ppf(0.975, degrees) * np.sqrt(sum(variances))
    difference = np.mean(second) - np.mean(first)
    assert compared["difference"] == pytest.approx(difference)
    assert compared["interval"] == pytest.approx([difference - half, difference + half])
    assert compared["conclusion"].startswith("b is more accurate than a by 10.67 points (95% interval +")
    assert compared["conclusion"].endswith("over seeds).")


def test_seeds_that_do_not_vary_give_no_interval_and_no_conclusion():
    assert compare(group("a", 0.7, 0.7), group("b", 0.7, 0.7)) is None


def test_one_seed_against_several_and_other_data_are_not_compared():
    assert compare(group("a", 0.7), group("b", 0.7, 0.8)) is None
    assert compare(group("a", 0.7), group("b", 0.8, data="cifar10")) is None
    assert compare(group("a", 0.7), group("b", 0.8)) is not None
