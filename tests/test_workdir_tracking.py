"""Experiment trackers: what they are given over several starts of a run, and that they cannot harm it."""

import dataclasses
import logging
import sys
import threading
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import Experiment, RunConfig
from convnext_jax.errors import UserError
from convnext_jax.run.loop import train
from convnext_jax.run.output import Output
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import make_mesh
from convnext_jax.tools import train as command
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir import tracking as module
from convnext_jax.workdir.metrics_log import read_metrics
from convnext_jax.workdir.tracker import TrackedRun
from convnext_jax.workdir.tracking import check_tracker, open_tracker
from convnext_jax.workdir.wandb_tracker import WandbTracker

Call = tuple[int, dict[str, float]]
EXPERIMENT = Experiment(run=RunConfig(tracker="wandb"))


class Fake:
    """Remembers what it is told, of all starts."""

    def __init__(self) -> None:
        self.runs: list[TrackedRun] = []
        self.logged: list[Call] = []
        self.closed: list[bool] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def open(self, run: TrackedRun) -> "Fake":
        self.runs.append(run)
        if self.error is not None:
            raise self.error
        return self

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.logged.append((step, dict(figures)))

    def close(self, *, completed: bool) -> None:
        self.closed.append(completed)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake()
    monkeypatch.setitem(module.TRACKERS, "wandb", fake.open)
    monkeypatch.setattr(module, "check_tracker", lambda name: None)
    monkeypatch.setattr("convnext_jax.run.prepare.check_tracker", lambda name: None)
    yield fake
    fake.gate.set()


def start(workdir: Path, first_step: int, figures: list[Call], experiment: Experiment = EXPERIMENT) -> None:
    """A start of a run of 20 steps that logs some figures and is stopped."""
    output = Output(workdir, lead=True)
    output.claim(experiment)
    output.open_log(first_step, 20, 5, experiment)
    for step, values in figures:
        output.figures(step, values)
    output.close_log(completed=False)


def at(step: int, loss: float, speed: float = 1.0) -> Call:
    return step, {"train/loss": loss, "train/images_per_second": speed}


def losses(calls: list[Call]) -> list[tuple[int, float]]:
    return [(step, figures["train/loss"]) for step, figures in calls]


def test_a_run_is_tracked_as_it_is_logged(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)
    experiment = tiny_experiment(tracker="wandb", epochs=2)
    with (
        StepCompiler() as compiler,
        prepare(
            experiment, tmp_path / "a", make_mesh(jax.devices()[:1]), compiler=compiler, dataset=tiny_dataset()
        ) as run,
    ):
        train(run)
    lines = read_metrics(tmp_path / "a" / "metrics.jsonl")
    without_seconds = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    assert [{"step": step, **figures} for step, figures in fake.logged] == without_seconds and len(lines) == 4
    assert fake.closed == [True]
    assert (fake.runs[0].name, fake.runs[0].settings["run"]["epochs"]) == ("a", 2)


def test_a_run_that_goes_on_is_the_same_and_tracks_no_figure_twice(fake: Fake, tmp_path: Path):
    start(tmp_path, 0, [at(5, 3.0), at(10, 2.0), at(15, 1.0)])
    start(tmp_path, 10, [at(15, 1.0, speed=9.0), (15, {"test/top1": 0.5}), at(20, 0.5)])
    assert [(step, set(figures)) for step, figures in fake.logged[3:]] == [
        (15, {"epoch", "test/top1"}),
        (20, {"epoch", "train/loss", "train/images_per_second"}),
    ]
    assert fake.runs[0].identifier == fake.runs[1].identifier and fake.closed == [False, False]
    start(tmp_path / "other", 0, [])
    assert fake.runs[2].identifier != fake.runs[0].identifier


def test_what_comes_to_something_else_the_second_time_is_tracked(fake: Fake, tmp_path: Path):
    start(tmp_path, 0, [at(5, 3.0), at(10, 2.0), at(15, 1.0)])
    start(tmp_path, 5, [at(10, 2.5), at(15, 1.0)])  # as after a rollback
    start(tmp_path, 5, [at(10, 2.5), at(15, 1.5)])
    assert losses(fake.logged) == [(5, 3.0), (10, 2.0), (15, 1.0), (10, 2.5), (15, 1.5)]


def test_a_tracker_that_comes_later_is_given_what_was_logged(fake: Fake, tmp_path: Path):
    start(tmp_path, 0, [at(5, 3.0), at(10, 2.0), at(15, 1.0)], Experiment())
    assert fake.runs == []
    start(tmp_path, 10, [at(15, 1.0)])
    assert losses(fake.logged) == [(5, 3.0), (10, 2.0), (15, 1.0)]
    assert fake.logged[0][1]["epoch"] == 1.0


def test_only_the_lead_process_tracks(fake: Fake, tmp_path: Path):
    output = Output(tmp_path, lead=False)
    output.open_log(0, 20, 5, EXPERIMENT)
    output.figures(5, {"train/loss": 1.0})
    assert output.close_log(completed=True) and fake.runs == []


def test_the_seeds_of_a_run_have_its_name(fake: Fake, tmp_path: Path):
    start(tmp_path / "three" / "seed_1", 0, [])
    assert fake.runs[0].name == "three/seed_1"


# --- trackers that fail


def test_a_tracker_that_fails_is_left_alone_after_one_warning(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    output = Output(tmp_path, lead=True)
    output.claim(EXPERIMENT)
    output.open_log(0, 20, 5, EXPERIMENT)
    fake.error = ConnectionError("the server is gone\nin detail")
    for step in (5, 10):
        output.figures(step, {"train/loss": 1.0})
    assert output.close_log(completed=True)
    assert [record.message for record in caplog.records] == [
        "wandb failed (the server is gone); the training goes on without it, and metrics.jsonl has all figures"
    ]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_tracker_that_hangs_is_not_waited_for(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    fake.gate.clear()
    start(tmp_path, 0, [at(5, 3.0)])
    assert [record.message for record in caplog.records] == [
        "wandb did not take all figures within 0 s; metrics.jsonl has them"
    ]


def test_a_tracker_that_cannot_be_opened_refuses_a_new_run_and_no_other(
    fake: Fake, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    fake.error = RuntimeError("no API key")
    message = r"^config\.run\.tracker=wandb cannot be used \(no API key\); mend that, or set config\.run\.tracker=none$"
    with pytest.raises(UserError, match=message):
        start(tmp_path, 0, [])
    fake.error = None
    start(tmp_path, 0, [])
    fake.error = RuntimeError("no API key")
    with caplog.at_level(logging.WARNING):
        start(tmp_path, 0, [at(5, 3.0)])
    (record,) = caplog.records
    assert record.message.endswith("cannot be used (no API key); the training goes on without it")


def test_a_tracker_that_is_not_installed_is_named_before_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    message = r"^config\.run\.tracker=wandb: wandb is not installed; run `pip install wandb`$"
    with pytest.raises(UserError, match=message):
        check_tracker("wandb")
    check_tracker("none")
    monkeypatch.setattr(command, "_train", lambda *arguments, **options: pytest.fail("it went on"))
    words = ["train.py", "--config", "digits", "--workdir", str(tmp_path / "a"), "--config.run.tracker=wandb"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError, match=message):
        command.main()
    with pytest.raises(UserError, match=message), StepCompiler() as compiler:
        experiment = tiny_experiment(tracker="wandb")
        prepare(experiment, tmp_path / "a", make_mesh(jax.devices()[:1]), compiler=compiler)
    assert not (tmp_path / "a").exists()


def test_every_choice_can_be_opened():
    from convnext_jax.config import CHOICES

    assert set(CHOICES["run", "tracker"]) == {"none", *module.TRACKERS}
    assert open_tracker("none", Path("nowhere"), {}, [], 0) is None


# --- the real ones


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    mlflow = pytest.importorskip("mlflow")
    experiment = Experiment(run=RunConfig(tracker="mlflow", batch_size=64))
    start(tmp_path / "a", 0, [at(5, 3.0), at(10, 2.0)], experiment)
    other = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, keep_best=2))
    start(tmp_path / "a", 5, [at(10, 2.0), at(15, 1.0)], other)
    client = mlflow.MlflowClient()
    (project,) = (each for each in client.search_experiments() if each.name == "convnext_jax")
    (run,) = client.search_runs([project.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((each.step, each.value) for each in history) == [(5, 3.0), (10, 2.0), (15, 1.0)]
    assert (run.info.run_name, run.info.status, run.data.params["run.batch_size"]) == ("a", "KILLED", "64")


def test_weights_and_biases_is_told_which_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[str, Any]] = []
    run = types.SimpleNamespace(
        define_metric=lambda name, step_metric: calls.append(("define", (name, step_metric))),
        log=lambda figures: calls.append(("log", figures)),
        finish=lambda exit_code: calls.append(("finish", exit_code)),
    )
    library: Any = types.ModuleType("wandb")
    library.Settings = lambda **options: options
    library.init = lambda **options: calls.append(("init", options)) or run
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    tracked = WandbTracker(TrackedRun("ab12", "c100", tmp_path, {"run": {"seed": 3}}))
    tracked.log(5, {"train/loss": 1.0})
    tracked.close(completed=False)
    (_, options), *others = calls
    expected = {"id": "ab12", "resume": "allow", "project": "convnext_jax", "name": "c100", "dir": str(tmp_path)}
    assert expected.items() <= options.items() and options["config"] == {"run": {"seed": 3}}
    assert others == [("define", ("*", "step")), ("log", {"step": 5, "train/loss": 1.0}), ("finish", 1)]
