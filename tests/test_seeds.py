"""Several seeds in one command: each the run that it would be alone, and their mean and deviation."""

import dataclasses
import json
import os
import signal
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from test_loop import without_clocks
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate import offline
from convnext_jax.evaluate.seeds import over_seeds, seed_table
from convnext_jax.models import split_model
from convnext_jax.run import loop, seeds
from convnext_jax.run import prepare as preparation
from convnext_jax.sharding import abstract, make_mesh, replicated
from convnext_jax.train import programs as train_programs
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.train.step import lower_train_steps
from convnext_jax.workdir.records import DatasetRecord, claim

DATASET = tiny_dataset()
# Four epochs of five steps, as in other tests, so that what they compiled serves here too.
EXPERIMENT = tiny_experiment(seed=3, seeds=2, eval_every_epochs=4)
FIGURES = [f"{split}/{name}" for split in ("test", "test_ema") for name in ("loss", "top1", "top5")]


class Both(NamedTuple):
    """What training two seeds left: the folder, what was said of it, and what was compiled for it, how often."""

    workdir: Path
    summary: dict[str, Any]
    programs: TrainPrograms
    compilations: int


def train(workdir: Path, experiment: Experiment = EXPERIMENT, programs: TrainPrograms | None = None) -> dict[str, Any]:
    """What train.py does."""
    claim(workdir, experiment)
    DatasetRecord.of(DATASET).write(workdir)
    mesh = make_mesh(jax.devices()[:1])
    run = seeds.train_seeds if experiment.run.seeds > 1 else loop.train
    if programs is not None:
        return run(experiment, DATASET, workdir, mesh, programs)
    with TrainPrograms() as own:
        return run(experiment, DATASET, workdir, mesh, own)


def of_one_seed(seed: int) -> Experiment:
    return dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, seed=seed, seeds=1))


def read_parameters(workdir: Path) -> Any:
    like = abstract(split_model(tiny_model())[1], replicated(make_mesh(jax.devices()[:1])))
    with loop.Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_model(20, like, {})[0]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "model_from_config", lambda *arguments, seed, **names: tiny_model(seed=seed))
    monkeypatch.setattr(offline, "model_from_config", lambda *arguments, **names: tiny_model())
    monkeypatch.setattr(offline, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(offline.data, "load", lambda config: DATASET)
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)  # a second a run


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Seeds 3 and 4."""
    compilations = []

    def counting(*arguments: Any) -> jax.stages.Lowered:
        compilations.append(1)
        return lower_train_steps(*arguments)

    workdir = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch, TrainPrograms() as programs:
        patch.setattr(preparation, "model_from_config", lambda *arguments, seed, **names: tiny_model(seed=seed))
        patch.setattr(train_programs, "lower_train_steps", counting)
        summary = train(workdir, programs=programs)
    return Both(workdir, summary, programs, len(compilations))


def test_each_seed_is_the_run_that_it_would_be_alone(both: Both, tmp_path: Path):
    train(tmp_path, of_one_seed(4))
    assert without_clocks(both.workdir / "seed_4") == without_clocks(tmp_path)
    assert without_clocks(both.workdir / "seed_4") != without_clocks(both.workdir / "seed_3")
    parameters = [read_parameters(workdir) for workdir in (both.workdir / "seed_4", tmp_path)]
    for ours, theirs in zip(*map(jax.tree.leaves, parameters), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert both.compilations == 1, "the seeds share one compiled step"
    log = both.workdir / "seed_4" / "metrics.jsonl"
    before = log.read_bytes()
    train(both.workdir / "seed_4", of_one_seed(4))
    assert log.read_bytes() == before, "a seed's folder is a workdir like any other"


def test_the_summary_has_the_mean_the_deviation_and_each_seed(both: Both):
    workdir, summary = both.workdir, both.summary
    assert json.loads((workdir / "summary.json").read_text()) == summary
    each = [json.loads((workdir / f"seed_{seed}" / "summary.json").read_text()) for seed in (3, 4)]
    assert summary["seeds"] == {"3": each[0], "4": each[1]}
    assert summary["split"] == "test" and summary["mean"].keys() == summary["std"].keys() == set(FIGURES)
    a, b = (one["final"]["test/loss"] for one in each)
    assert summary["mean"]["test/loss"] == pytest.approx((a + b) / 2)
    assert summary["std"]["test/loss"] == pytest.approx(abs(a - b) / 2**0.5) and a != b


def test_finished_seeds_are_not_trained_again(both: Both, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_programs, "lower_train_steps", None)
    logs = [both.workdir / f"seed_{seed}" / "metrics.jsonl" for seed in (3, 4)]
    before = [log.read_bytes() for log in logs]
    assert train(both.workdir) == both.summary
    assert [log.read_bytes() for log in logs] == before


def test_another_configuration_is_refused_for_the_whole_and_for_a_seed(both: Both, tmp_path: Path):
    more = dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, seeds=3))
    with pytest.raises(UserError, match=r"belongs to another configuration \(run\.seeds: 2 there, 3 now\)"):
        train(both.workdir, more)
    (tmp_path / "seed_4").symlink_to(both.workdir / "seed_4")
    longer = dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, epochs=5))
    with pytest.raises(UserError, match=r"seed_4 belongs to another configuration \(run\.epochs: 4 there, 5 now\)"):
        train(tmp_path, longer)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (7, r"SIGTERM: saved step 5 of 20 in .*seed_4; run the same command to go on"),
        # In the last epoch of the first seed, which comes to its end.
        (4, r"SIGTERM: 1 of 2 seeds are trained in .*; run the same command to go on"),
    ],
)
def test_a_signal_stops_and_the_same_command_goes_on(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: int, message: str
):
    catch_up = loop._Reporter.catch_up
    calls = []

    def preempting(self: Any) -> None:
        calls.append(1)
        if len(calls) == report:
            os.kill(os.getpid(), signal.SIGTERM)
        catch_up(self)

    monkeypatch.setattr(loop._Reporter, "catch_up", preempting)
    with pytest.raises(loop.Stopped, match=message):
        train(tmp_path, programs=both.programs)
    assert not (tmp_path / "summary.json").exists()
    train(tmp_path, programs=both.programs)
    for seed in ("seed_3", "seed_4"):
        assert without_clocks(tmp_path / seed) == without_clocks(both.workdir / seed)


def test_evaluation_covers_every_seed(both: Both):
    workdir, summary = both.workdir, both.summary
    evaluation = offline.evaluate_workdir(workdir, batch_size=13)
    assert evaluation["split"] == "test" and list(evaluation["seeds"]) == ["3", "4"]
    for name in ("loss", "top1", "top5"):
        assert evaluation["mean"][name] == pytest.approx(summary["mean"][f"test/{name}"], rel=1e-6)
        assert evaluation["std"][name] == pytest.approx(summary["std"][f"test/{name}"], rel=1e-4, abs=1e-9)
        for seed in ("3", "4"):
            alone = offline.evaluate_workdir(workdir / f"seed_{seed}", batch_size=13)
            assert evaluation["seeds"][seed] == alone and alone["step"] == 20


def test_evaluation_refuses_seeds_that_are_not_there_or_not_as_far(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    claim(tmp_path, EXPERIMENT)
    (tmp_path / "seed_3").symlink_to(both.workdir / "seed_3")
    with pytest.raises(UserError, match="seed_4 is no workdir of train.py"):
        offline.evaluate_workdir(tmp_path)
    steps = iter((5, 10))
    monkeypatch.setattr(offline.SavedRun, "select", lambda self, which: next(steps))
    with pytest.raises(UserError, match=r"different steps \(5, 10\); train them to the end, or .* --workdir .*seed_3"):
        offline.evaluate_workdir(both.workdir)


def test_the_deviation_is_that_of_a_sample():
    figures = {"0": {"top1": 0.5, "loss": 1.0}, "1": {"top1": 0.75, "loss": 1.0}, "2": {"top1": 0.625, "loss": 1.0}}
    found = over_seeds(figures.values())
    assert found["mean"] == {"top1": 0.625, "loss": 1.0}
    assert found["std"]["top1"] == pytest.approx(statistics.stdev((0.5, 0.75, 0.625))) and found["std"]["loss"] == 0.0
    assert seed_table(figures, ["top1"]).splitlines() == [
        "| seed | top1   |",
        "|------|--------|",
        "| 0    | 0.5000 |",
        "| 1    | 0.7500 |",
        "| 2    | 0.6250 |",
        "| mean | 0.6250 |",
        "| std  | 0.1250 |",
    ]
