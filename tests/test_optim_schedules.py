"""Schedules against hand-computed values, and what contradicts them refused."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.config import CHOICES, OptimConfig, parse_experiment
from convnext_jax.errors import UserError
from convnext_jax.optim.schedules import make_schedule


def rates(epochs: int, steps_per_epoch: int, **fields: Any) -> np.ndarray:
    """The learning rate of every step of a run, and of the one that would follow."""
    schedule = make_schedule(OptimConfig(**fields), epochs, steps_per_epoch)
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(epochs * steps_per_epoch + 1)))


@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 2.0, 10.0])
def test_cosine_is_the_formula(warmup_epochs: float):
    warmup, total = round(7 * warmup_epochs), 70

    def expected(step: int) -> float:
        if step < warmup:
            return 0.4 * (step + 1) / warmup
        return 0.01 + 0.39 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    found = rates(10, 7, learning_rate=0.4, min_learning_rate=0.01, warmup_epochs=warmup_epochs)
    np.testing.assert_allclose(found[:-1], [expected(step) for step in range(total)], rtol=1e-5)
    if warmup < total:
        assert found[-1] == pytest.approx(0.01)


@pytest.mark.parametrize(("warmup_epochs", "rise"), [(0.0, []), (1.0, [0.025, 0.05, 0.075, 0.1])])
def test_step_falls_once_its_epochs_are_over(warmup_epochs: float, rise: list[float]):
    found = rates(
        8, 4, schedule="step", learning_rate=0.1, warmup_epochs=warmup_epochs, decay_epochs=(3, 6), decay_factor=0.2
    )
    expected = [0.1] * 12 + [0.02] * 12 + [0.004] * 9
    expected[: len(rise)] = rise
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("warmup_epochs", "rise"), [(0.0, []), (0.5, [0.2, 0.4])])
def test_warmup_stable_decay_is_flat_and_then_a_line(warmup_epochs: float, rise: list[float]):
    found = rates(
        5,
        4,
        schedule="warmup_stable_decay",
        learning_rate=0.4,
        min_learning_rate=0.04,
        warmup_epochs=warmup_epochs,
        decay_fraction=0.3,
    )
    # Six of the twenty steps fall, by 0.06 each.
    expected = [0.4] * 15 + [0.34, 0.28, 0.22, 0.16, 0.10, 0.04]
    expected[: len(rise)] = rise
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_one_cycle_rises_from_a_25th_and_falls_to_the_floor(floor: float):
    found = rates(10, 4, schedule="one_cycle", learning_rate=1.0, min_learning_rate=floor, warmup_epochs=3.0)
    middle = (1.0 + floor) / 2
    assert found[[0, 6, 12, 26, 40]] == pytest.approx([0.04, 0.52, 1.0, middle, floor], rel=1e-5, abs=1e-7)
    assert (np.diff(found[:13]) > 0).all() and (np.diff(found[12:]) < 0).all()


@pytest.mark.parametrize("schedule", CHOICES["optim", "schedule"])
def test_every_schedule_learns_from_the_first_step_and_reaches_its_peak_where_the_warmup_ends(schedule: str):
    fields = {"decay_epochs": (6,)} if schedule == "step" else {}
    found = rates(10, 5, schedule=schedule, learning_rate=0.3, min_learning_rate=0.003, warmup_epochs=2.0, **fields)
    assert found.dtype == np.float32 and (found > 0).all()
    assert [found.max(), found[10]] == pytest.approx([0.3, 0.3])
    assert (np.diff(found[:10]) > 0).all() and (np.diff(found[10:]) < 1e-7).all()
    assert found[-1] == pytest.approx(0.03 if schedule == "step" else 0.003, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"schedule": "cosin"},
            r"config\.optim\.schedule='cosin': unknown; did you mean 'cosine'\? allowed: cosine, st",
        ),
        (
            {"schedule": "step"},
            r"optim\.schedule=step: config\.optim\.decay_epochs must be given, such as \(100, 150\)",
        ),
        ({"decay_epochs": (10,)}, r"optim\.decay_epochs=\(10,\) is for config\.optim\.schedule=step, not cosine;"),
        ({"schedule": "step", "decay_epochs": (60, 50)}, r"config\.optim\.decay_epochs=\(60, 50\): must ascend"),
        ({"schedule": "step", "decay_epochs": (50, 50)}, r"config\.optim\.decay_epochs=\(50, 50\): must ascend"),
        (
            {"schedule": "step", "decay_epochs": (50, 100)},
            r"decay_epochs=\(50, 100\): must be after .* before the end of the run at config\.run\.epochs=100",
        ),
        (
            {"schedule": "step", "decay_epochs": (5, 50)},
            r"decay_epochs=\(5, 50\): must be after the warm-up of config\.optim\.warmup_epochs=5 and",
        ),
        ({"schedule": "step", "decay_epochs": (0, 50), "warmup_epochs": 0}, r"decay_epochs=\(0, 50\): must be after"),
        ({"schedule": "step", "decay_epochs": (5, 7.5)}, r"config\.optim\.decay_epochs\[1\]=7\.5: must be of type int"),
        ({"decay_factor": 1.0}, r"config\.optim\.decay_factor=1\.0: must be in \[0, 1\)"),
        ({"decay_factor": 0.0}, r"config\.optim\.decay_factor=0\.0: must be greater than 0"),
        ({"decay_fraction": 1.1}, r"config\.optim\.decay_fraction=1\.1: must be in \[0, 1\]"),
        ({"decay_fraction": 0.0}, r"config\.optim\.decay_fraction=0\.0: must be greater than 0"),
        (
            {"schedule": "one_cycle", "warmup_epochs": 0},
            r"schedule=one_cycle peaks at config\.optim\.warmup_epochs=0, which must be between 0 and config\.run\.ep",
        ),
        (
            {"schedule": "one_cycle", "warmup_epochs": 100},
            r"one_cycle peaks at config\.optim\.warmup_epochs=100, which",
        ),
        (
            {"schedule": "warmup_stable_decay", "warmup_epochs": 30, "decay_fraction": 0.71},
            r"warmup_epochs=30 reaches into the last config\.optim\.decay_fraction=0\.71 of config\.run\.epochs=100",
        ),
    ],
)
def test_contradictions_are_refused_with_their_fields(fields: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        parse_experiment({"optim": fields})


def test_a_warmup_and_a_decay_may_just_fill_the_run():
    fields = {"schedule": "warmup_stable_decay", "warmup_epochs": 0.6, "decay_fraction": 0.8}
    assert 0.6 + 0.8 * 3 > 3, "in binary"
    parse_experiment({"optim": fields, "run": {"epochs": 3}})
    found = rates(3, 5, **fields, learning_rate=1.0, min_learning_rate=0.4)
    assert found[1:6] == pytest.approx([2 / 3, 1.0, 1.0, 0.95, 0.9]) and found[15] == pytest.approx(0.4)
