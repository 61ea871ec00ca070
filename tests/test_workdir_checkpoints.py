"""Checkpoints: the latest and the best kept, the model alone restored, on any devices, of any version."""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from convnext_jax.config import Experiment, OptimConfig, RunConfig
from convnext_jax.errors import UserError
from convnext_jax.sharding import Sharding, abstract, make_mesh
from convnext_jax.tasks.classification import Classification
from convnext_jax.train.state import init_state
from convnext_jax.workdir.best_metric import BestMetric, best_metric
from convnext_jax.workdir.checkpoint_folder import ITEMS
from convnext_jax.workdir.checkpoints import Checkpoints

OPTIMIZER = optax.adam(0.1)


def items_at(step: int) -> dict[str, Any]:
    params = {"layer": {"kernel": jnp.full((2, 3), float(step))}}
    state = init_state(params, OPTIMIZER, {"mean": jnp.full(2, step + 0.5)}, keep_ema=True)
    return {name: getattr(state, name) for name in ITEMS}


def figures(top1: float, ema: float = 0.0) -> dict[str, float]:
    return {"test/loss": 1.0 - top1, "test/top1": top1, "test/top5": 1.0, "test_ema/top1": ema}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Evaluated at 10, 20, 30 and 40, saved at 35, 43 and 45 besides; the best is 20."""
    with Checkpoints(tmp_path / "checkpoints", keep_latest=1, keep_best=1) as checkpoints:
        for step, top1 in ((10, 0.1), (20, 0.9), (30, 0.5), (35, None), (40, 0.6), (43, None), (45, None)):
            checkpoints.save(step, items_at(step), None if top1 is None else figures(top1))
    return tmp_path / "checkpoints"


def test_latest_and_best_are_kept(directory: Path):
    assert sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal()) == [20, 40, 45]
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == checkpoints.select("latest") == 45
        assert checkpoints.best_step() == checkpoints.select("best") == 20
        assert checkpoints.metrics(20) == figures(0.9)
        assert checkpoints.metrics(45) == {}
        assert checkpoints.select("40") == 40


def test_of_equals_the_earliest_is_the_best_and_stays_the_best(tmp_path: Path):
    with Checkpoints(tmp_path, keep_latest=1, keep_best=2) as checkpoints:
        for step, top1 in ((10, 0.8), (20, 0.9), (30, 0.9), (40, 0.9), (50, 0.1)):
            checkpoints.save(step, items_at(step), figures(top1))
            checkpoints.wait()
            assert checkpoints.best_step() == min(step, 20)
        assert checkpoints.steps() == [20, 30, 50]


def test_a_folder_may_have_any_name_in_utf8_and_no_other(tmp_path: Path):
    folder = tmp_path / "my café ~ $HOME" / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(10, items_at(10))
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 10
    latin1 = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UserError, match=r"caf.*: checkpoints need a path in UTF-8.*choose another --workdir"):
        Checkpoints(latin1)
    assert not latin1.exists()


@pytest.mark.parametrize(
    ("best", "expected"),
    [(BestMetric("ema/top1", True), 30), (BestMetric("loss", False), 20), (BestMetric("top1", True), 20)],
)
def test_the_best_is_chosen_by_the_named_metric(tmp_path: Path, best: BestMetric, expected: int):
    with Checkpoints(tmp_path, keep_latest=1, keep_best=1, best=best) as checkpoints:
        for step, top1, ema in ((10, 0.1, 0.2), (20, 0.9, 0.3), (30, 0.5, 0.8), (40, 0.6, 0.4)):
            checkpoints.save(step, items_at(step), figures(top1, ema))
        checkpoints.wait()
        assert checkpoints.steps() == [expected, 40] and checkpoints.select("best") == expected


@pytest.mark.parametrize("which", ["10", "4", "newest", "-1"])
def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(directory: Path, which: str):
    with Checkpoints(directory, read_only=True) as checkpoints:
        with pytest.raises(UserError, match=f"no checkpoint '{which}'; there are 20, 40, 45; or say best or latest"):
            checkpoints.select(which)


def test_all_items_come_back(directory: Path):
    with Checkpoints(directory, read_only=True) as checkpoints:
        restored = checkpoints.restore(40, items_at(0))
    assert set(restored) == set(ITEMS)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(items_at(40)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parameters_alone_come_back_on_other_devices(directory: Path):
    sharding = Sharding(make_mesh()).replicated
    with Checkpoints(directory, read_only=True) as checkpoints:
        restored = checkpoints.restore(20, {"params": abstract(items_at(0)["params"], sharding), "batch_stats": {}})
    kernel = restored["params"]["layer"]["kernel"]
    np.testing.assert_array_equal(kernel, np.full((2, 3), 20.0))
    assert kernel.sharding.device_set == set(jax.devices()) and restored["batch_stats"] == {}


def test_running_statistics_of_version_1_come_back(tmp_path: Path):
    # It called the item "statistics".
    arrays = items_at(7)
    with ocp.CheckpointManager(tmp_path, item_names=("params", "statistics")) as manager:
        save = {"params": arrays["params"], "statistics": arrays["batch_stats"]}
        manager.save(7, args=ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in save.items()}))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        restored = checkpoints.restore(7, {name: items_at(0)[name] for name in ("params", "batch_stats")})
    np.testing.assert_array_equal(restored["batch_stats"]["mean"], np.full(2, 7.5))


def test_a_step_that_is_there_is_left_alone(directory: Path):
    with Checkpoints(directory, keep_latest=2, keep_best=1) as checkpoints:
        checkpoints.save(40, items_at(7), figures(1.0))
        checkpoints.wait()
        assert checkpoints.metrics(40) == figures(0.6)


def test_what_a_kill_left_half_written_is_swept_away(directory: Path):
    half = directory / "50.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "params").write_text("half")
    with Checkpoints(directory, keep_latest=2, keep_best=1) as checkpoints:
        assert checkpoints.latest_step() == 45
        # Orbax sweeps in the background, and waits for that before it saves.
        checkpoints.save(60, items_at(60))
    assert not half.exists()


def test_the_best_of_a_run_with_a_validation_split(tmp_path: Path):
    with Checkpoints(tmp_path, keep_latest=1, keep_best=1) as checkpoints:
        for step, top1 in ((10, 0.9), (20, 0.5), (30, 0.6)):
            checkpoints.save(step, items_at(step), {"validation/loss": 1.0, "validation/top1": top1})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 30] and checkpoints.select("best") == 10


def test_the_best_of_a_run_without_evaluations_is_its_latest(tmp_path: Path):
    with Checkpoints(tmp_path, keep_latest=2, keep_best=1) as checkpoints:
        with pytest.raises(UserError, match="no checkpoint 'best'; there is none yet$"):
            checkpoints.select("best")
        checkpoints.save(5, items_at(5))
        checkpoints.wait()
        assert checkpoints.select("best") == 5


@pytest.mark.parametrize(
    ("name", "ema_decay", "expected"),
    [
        ("auto", 0.0, BestMetric("top1", True)),
        ("auto", 0.9, BestMetric("ema/top1", True)),
        ("loss", 0.9, BestMetric("loss", False)),
        ("ema/top5", 0.9, BestMetric("ema/top5", True)),
    ],
)
def test_what_a_configuration_names(name: str, ema_decay: float, expected: BestMetric):
    experiment = Experiment(optim=OptimConfig(ema_decay=ema_decay), run=RunConfig(best_metric=name))
    assert best_metric(experiment, Classification(10)) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy", r"best_metric='accuracy': unknown; allowed: auto, top1, top5, loss, ema/top1, ema/top5, ema/loss"),
        ("ema/top1", r"best_metric='ema/top1' needs a moving average; set config\.optim\.ema_decay"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(name: str, message: str):
    with pytest.raises(UserError, match=message):
        best_metric(Experiment(run=RunConfig(best_metric=name)), Classification(10))
