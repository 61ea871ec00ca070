"""Two recipes with several seeds each, compared by their accuracies."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import t
from tiny import tiny_experiment

from convnext_jax.data.dataset import Split
from convnext_jax.evaluate.comparison import Group, compare, group_seeds, why_not_compared
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


def of_run(workdir: str, seed: int = 0, *, step: str = "latest", number: int = 40, epochs: int = 2) -> Evaluation:
    """An evaluation of a run, as far as groups look at it."""
    run: Any = SimpleNamespace(workdir=Path(workdir), experiment=tiny_experiment(seed=seed, epochs=epochs))
    examples, unused = Split(np.zeros((1000, 1, 1, 1), np.uint8), LABELS), SimpleNamespace()
    selection = Selection(step=step)
    return Evaluation(run, number, selection, unused, {}, {}, examples, {}, np.zeros((1000, 2)), None)  # type: ignore


def test_a_second_run_of_a_seed_is_a_group_of_its_own_and_the_same_run_counts_once():
    groups = group_seeds([of_run("r/a"), of_run("r/b", 1), of_run("r/again"), of_run("./r/a")])
    assert [(group.name, len(group.evaluations)) for group in groups] == [("r/a (2 seeds)", 2), ("r/again", 1)]


def test_every_group_has_a_name_of_its_own():
    several = [of_run(f"r/seed_{seed}", seed) for seed in (0, 1)]
    assert [group.name for group in group_seeds(several)] == ["r (2 seeds)"]
    assert [group.name for group in group_seeds([of_run("r/seed_0"), of_run("r/seed_1", epochs=3)])] == [
        "r/seed_0",
        "r/seed_1",
    ]
    others = [of_run(f"r/seed_{seed}", seed, epochs=3) for seed in (2, 3)]
    assert [group.name for group in group_seeds([*several, *others])] == ["r/seed_0 (2 seeds)", "r/seed_2 (2 seeds)"]
    # The first seed's best step is its latest.
    best = [of_run(f"r/seed_{seed}", seed, step="best", number=number) for seed, number in ((0, 40), (1, 20))]
    assert [group.name for group in group_seeds([*several, *best, of_run("r/x", step="20", number=20)])] == [
        "r (2 seeds) latest step 40",
        "r (2 seeds) best step",
        "r/x step 20",
    ]


def test_a_single_example_compares_nothing():
    one = dataclasses.replace(of_run("r/a"), examples=Split(np.zeros((1, 1, 1, 1), np.uint8), LABELS[:1]))
    one = dataclasses.replace(one, logits=np.zeros((1, 2)), run=SimpleNamespace(record=SimpleNamespace(name="digits")))
    assert compare(Group("a", (one,)), Group("b", (one,))) is None


def test_logits_that_are_no_numbers_are_right_about_no_example():
    # Of class 0, which argmax would name.
    evaluation = dataclasses.replace(of_run("r/a"), logits=np.full((1000, 2), np.nan))
    assert not evaluation.correct.any()


def test_one_seed_against_several_and_other_data_are_not_compared():
    assert compare(group("a", 0.7), group("b", 0.7, 0.8)) is None
    assert compare(group("a", 0.7), group("b", 0.8, data="cifar10")) is None
    assert compare(group("a", 0.7), group("b", 0.8)) is not None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (group("b", 0.7), "one has several seeds and the other one seed"),
        (group("b", 0.7, 0.7), "the seeds of neither vary"),
        (group("b", 0.8, 0.8, data="cifar10"), "they were evaluated on different examples"),
        (group("b", 0.8, 0.9), None),
    ],
)
def test_it_is_said_why_two_are_not_compared(other: Group, reason: str | None):
    first = group("a", 0.7, 0.7)
    assert why_not_compared(first, other) == reason
    assert (compare(first, other) is None) == (reason is not None)
