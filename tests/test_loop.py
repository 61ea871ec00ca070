"""The loop: what it writes, that a stopped run goes on as if it had not been, and how it fails."""

import dataclasses
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from flax import nnx
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.config import AugmentConfig, Experiment, OptimConfig
from convnext_jax.errors import UserError
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import split_model
from convnext_jax.models.weights import Pretrained
from convnext_jax.run import loop
from convnext_jax.run import prepare as preparation
from convnext_jax.sharding import make_mesh
from convnext_jax.train import programs as train_programs
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.train.step import Program, lower_train_steps
from convnext_jax.workdir.metrics_log import read_metrics
from convnext_jax.workdir.records import claim

DATASET = tiny_dataset()


def train(experiment: Experiment, workdir: Path, programs: TrainPrograms | None = None) -> dict[str, Any]:
    """A run, with the programs that others have compiled where they are given."""
    claim(workdir, experiment)
    mesh = make_mesh(jax.devices()[:1])
    if programs is not None:
        return loop.train(experiment, DATASET, workdir, mesh, programs)
    with TrainPrograms() as own:
        return loop.train(experiment, DATASET, workdir, mesh, own)


def without_clocks(workdir: Path) -> list[dict[str, float]]:
    """The log of a run, less what no two runs share."""
    clocks = ("seconds", "train/images_per_second")
    return [
        {name: value for name, value in line.items() if name not in clocks}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(preparation, "model_from_config", lambda *arguments, seed, **names: tiny_model(seed=seed))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Four epochs of five steps without a stop."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "model_from_config", lambda *arguments, seed, **names: tiny_model(seed=seed))
        return workdir, train(tiny_experiment(), workdir)


def test_a_run_writes_what_it_promises(whole: tuple[Path, dict[str, Any]]):
    workdir, summary = whole
    lines = read_metrics(workdir / "metrics.jsonl")
    train_lines = [line for line in lines if "train/loss" in line]
    test_lines = [line for line in lines if "test/loss" in line]
    assert [line["step"] for line in train_lines] == [line["step"] for line in test_lines] == [5, 10, 15, 20]
    assert set(train_lines[0]) == {
        *("step", "epoch", "seconds", "train/loss", "train/top1", "train/lr", "train/grad_norm"),
        "train/images_per_second",
    }
    assert set(test_lines[0]) == {
        *("step", "epoch", "seconds", "test/loss", "test/top1", "test/top5"),
        *("test_ema/loss", "test_ema/top1", "test_ema/top5"),
    }
    assert test_lines[0]["test_ema/loss"] != test_lines[0]["test/loss"]
    assert test_lines[-1]["epoch"] == 4.0
    assert test_lines[-1]["test/loss"] < test_lines[0]["test/loss"] - 0.05
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert summary["final"]["test/top1"] == test_lines[-1]["test/top1"]
    assert summary["test_examples"] == 13 and summary["parameters"] == 8_100
    assert json.loads((workdir / "environment.json").read_text())["versions"]["jax"] == jax.__version__
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()} >= {"15", "20"}


def test_a_finished_run_is_not_run_again(whole: tuple[Path, dict[str, Any]]):
    workdir, summary = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train(tiny_experiment(), workdir) == summary
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_run_stopped_in_mid_epoch_goes_on_as_if_it_had_not_been(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # One step a call, so that a stop falls between two evaluations; other images before and after it.
    experiment = tiny_experiment(steps_per_dispatch=1, image_sizes=(24, 16))
    compiled: list[int | None] = []
    before_compiling(monkeypatch, compiled.append)
    with TrainPrograms() as programs:
        train(experiment, tmp_path / "unbroken", programs)
    assert compiled == [24, 16]

    evaluate = loop._Reporter.catch_up
    calls = []

    def preempting(self: Any) -> None:
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        evaluate(self)

    monkeypatch.setattr(loop._Reporter, "catch_up", preempting)
    with pytest.raises(loop.Stopped, match=r"SIGTERM: saved step \d+ of 20 in .*run the same command to go on"):
        train(experiment, tmp_path / "broken", programs)
    stopped_at = read_metrics(tmp_path / "broken" / "metrics.jsonl")[-1]["step"]
    assert stopped_at % 5, "the stop has to fall into an epoch"
    train(experiment, tmp_path / "broken", programs)

    assert without_clocks(tmp_path / "broken") == without_clocks(tmp_path / "unbroken")
    parameters = [read_parameters(experiment, tmp_path / name) for name in ("unbroken", "broken")]
    for ours, theirs in zip(*map(jax.tree.leaves, parameters), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def read_parameters(experiment: Experiment, workdir: Path) -> Any:
    _, state = preparation.prepare(experiment, DATASET, make_mesh(jax.devices()[:1]))
    with loop.Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore_model(20, state.params, {})[0]


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The learning rate explodes in the second epoch; the first is saved.
    experiment = tiny_experiment()
    monkeypatch.setattr(preparation, "make_schedule", lambda *_: lambda step: jax.numpy.where(step < 5, 1e-3, 1e38))
    with pytest.raises(
        loop.Diverged,
        match=r"is (nan|inf) at step [6-9], learning rate 1e\+38; the checkpoint of step 5 is kept; lower",
    ):
        train(experiment, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()] == ["5"]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 5
    assert not (tmp_path / "summary.json").exists()


def test_evaluation_that_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*arguments: Any, **names: Any) -> dict[str, float]:
        return evaluate_split(*arguments, **names) | {"loss": float("nan")}

    monkeypatch.setattr(loop, "evaluate_split", broken)
    with pytest.raises(loop.Diverged, match="the test loss is nan at step 5, .*there is no checkpoint yet"):
        train(tiny_experiment(), tmp_path)
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"batch_size": 41}}, "batch_size=41 is larger than tiny's 40 training images"),
        ({"run": {"batch_size": 12}}, "batch_size=12 is not a multiple of the 8 devices; take 8 or 16"),
        ({"augment": {"crop_padding": 16}}, "crop_padding=16: reflection needs less than"),
    ],
)
def test_what_only_the_data_can_tell_is_refused_before_compilation(change: dict[str, Any], message: str):
    experiment = tiny_experiment()
    for section, fields in change.items():
        part = dataclasses.replace(getattr(experiment, section), **fields)
        experiment = dataclasses.replace(experiment, **{section: part})
    with pytest.raises(UserError, match=message):
        preparation.check_against_data(experiment, DATASET, make_mesh())


def test_muon_without_matrices_is_refused_by_the_shapes_alone(monkeypatch: pytest.MonkeyPatch):
    experiment = dataclasses.replace(tiny_experiment(), optim=OptimConfig(name="muon"))
    monkeypatch.setattr(preparation, "model_from_config", lambda *arguments, **names: tiny_model())
    preparation.check_optimizer(experiment)
    monkeypatch.setattr(preparation, "model_from_config", lambda *arguments, **names: nnx.Dict(head=tiny_model().head))
    with pytest.raises(UserError, match=r"config\.optim\.name=muon .* config\.model\.name has none"):
        preparation.check_optimizer(experiment)


def test_a_part_of_a_batch_that_does_not_split_over_the_devices_is_refused():
    experiment = tiny_experiment(batch_size=16)
    experiment = dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, accumulation=4))
    with pytest.raises(
        UserError, match=r"batch_size / config\.optim\.accumulation=4 is not a multiple of the 8 devices"
    ):
        preparation.check_against_data(experiment, DATASET, make_mesh())


def test_images_too_small_for_the_stem_are_refused():
    small = tiny_dataset(size=8)
    experiment = dataclasses.replace(tiny_experiment(), augment=AugmentConfig(crop_padding=0))
    with pytest.raises(UserError, match="32"):
        preparation.check_against_data(experiment, small, make_mesh())


def write_pretrained(directory: Path, num_classes: int = 4) -> Any:
    params = split_model(tiny_model(seed=9))[1]
    params["head"] = {"kernel": np.ones((16, num_classes), np.float32), "bias": np.ones(num_classes, np.float32)}
    params = jax.tree.map(np.asarray, params)
    Pretrained(params, "tiny", "patch2", num_classes, "a test").write(directory)
    return params


def starting_from(directory: Path) -> Experiment:
    # A learning rate at which nothing moves.
    experiment = tiny_experiment(epochs=1)
    model = dataclasses.replace(experiment.model, init_from=str(directory))
    optim = dataclasses.replace(experiment.optim, learning_rate=1e-12, min_learning_rate=0.0)
    return dataclasses.replace(experiment, model=model, optim=optim)


@pytest.mark.parametrize("num_classes", [4, 7])
def test_a_run_starts_from_pretrained_weights_and_needs_them_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num_classes: int
):
    params = write_pretrained(tmp_path / "weights", num_classes)
    experiment = starting_from(tmp_path / "weights")
    preparation.check_pretrained(experiment, DATASET)
    train(experiment, tmp_path / "run")
    said = capsys.readouterr().err
    assert f"starting from the weights in {tmp_path / 'weights'}" in said
    assert ("a fresh head of 4 classes stands for the one of 7" in said) == (num_classes == 7)
    (tmp_path / "weights").rename(tmp_path / "moved")
    train(experiment, tmp_path / "run")

    _, state = preparation.prepare(experiment, DATASET, make_mesh(jax.devices()[:1]))
    with loop.Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        trained = checkpoints.restore_model(5, state.params, {})[0]
    if num_classes == 7:
        params["head"] = state.params["head"]
    for ours, theirs in zip(*map(jax.tree.leaves, (trained, params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_weights_that_do_not_fit_are_refused_before_anything_is_compiled(tmp_path: Path):
    params = write_pretrained(tmp_path / "weights")
    del params["norm"]
    Pretrained(params, "tiny", "patch2", 4, "a test").write(tmp_path / "broken")
    with pytest.raises(UserError, match=r"the weights, of tiny, do not fit this model: norm/bias is missing; norm/sc"):
        preparation.check_pretrained(starting_from(tmp_path / "broken"), DATASET)
    with pytest.raises(UserError, match="absent holds no weights to start from"):
        preparation.check_pretrained(starting_from(tmp_path / "absent"), DATASET)


class Lowered:
    """Stands for a traced step: notes when it was compiled, and may wait or fail."""

    def __init__(self, lowered: jax.stages.Lowered, before: Callable[[], None]) -> None:
        self._lowered, self._before = lowered, before

    def compile(self) -> jax.stages.Compiled:
        self._before()
        return self._lowered.compile()


def before_compiling(monkeypatch: pytest.MonkeyPatch, act: Callable[[int | None], None]) -> None:
    """Has ``act(image size)`` called in the thread that compiles, before each compilation."""

    def lower(program: Program, *arguments: Any) -> Lowered:
        lowered = lower_train_steps(program, *arguments)
        return Lowered(lowered, lambda: act(program.image_size))

    monkeypatch.setattr(train_programs, "lower_train_steps", lower)


def test_it_trains_on_the_first_images_while_the_next_size_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trained = threading.Event()
    seen = []

    def wait(size: int | None) -> None:
        seen.append((size, size == 24 or trained.wait(timeout=60)))

    def note(self: Any, step: int, metrics: Any) -> None:
        trained.set()
        report_later(self, step, metrics)

    report_later = loop._Reporter.report_later
    monkeypatch.setattr(loop._Reporter, "report_later", note)
    before_compiling(monkeypatch, wait)
    train(tiny_experiment(image_sizes=(24, 16)), tmp_path)
    assert seen == [(24, True), (16, True)]
    assert re.search(r"compiled in \d+ s, 1 more image size while it trains", capsys.readouterr().err)


def test_on_a_gpu_it_trains_when_all_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int | None] = []
    before_compiling(monkeypatch, seen.append)
    monkeypatch.setattr(loop.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(loop, "_train_from", lambda *arguments: pytest.fail(f"{seen}") if len(seen) < 2 else None)
    monkeypatch.setattr(loop, "_finish", lambda *arguments: {})
    train(tiny_experiment(image_sizes=(24, 16)), tmp_path)
    assert seen == [24, 16]


def test_a_size_that_cannot_be_compiled_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    failed = threading.Event()

    def fail(size: int | None) -> None:
        if size == 16:
            failed.set()
            raise RuntimeError("16 pixels do not fit")

    def wait(self: Any, step: int, metrics: Any) -> None:
        failed.wait(timeout=60)
        time.sleep(0.1)  # from there to the end of the compilation

    before_compiling(monkeypatch, fail)
    monkeypatch.setattr(loop._Reporter, "report_later", wait)
    with pytest.raises(RuntimeError, match="16 pixels do not fit"):
        train(tiny_experiment(steps_per_dispatch=1, image_sizes=(24, 16)), tmp_path)
    assert not read_metrics(tmp_path / "metrics.jsonl")


def test_a_signal_does_not_wait_for_the_next_size_to_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waiting, stopped = threading.Event(), threading.Event()
    compiled_first = []

    class Watched(TrainPrograms):
        def is_ready(self, size: int | None, seconds: float) -> bool:
            waiting.set()
            return super().is_ready(size, seconds)

    def preempt(size: int | None) -> None:
        if size == 16:
            waiting.wait(timeout=60)
            os.kill(os.getpid(), signal.SIGTERM)
            compiled_first.append(not stopped.wait(timeout=60))

    before_compiling(monkeypatch, preempt)
    monkeypatch.setattr(loop._Reporter, "evaluate", lambda *arguments: {"test/top1": 0.5})
    with pytest.raises(loop.Stopped, match="SIGTERM: saved step 10 of 20"), Watched() as programs:
        train(tiny_experiment(image_sizes=(24, 16)), tmp_path, programs)
    stopped.set()
    programs.wait_for(16)
    assert compiled_first == [False]


def test_what_is_not_begun_when_the_run_ends_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int | None] = []
    left = threading.Event()

    def wait(size: int | None) -> None:
        seen.append(size)
        left.wait(timeout=60)

    before_compiling(monkeypatch, wait)
    experiment = tiny_experiment(image_sizes=(24, 16))
    planned, shapes = preparation.plan(experiment, DATASET, make_mesh(jax.devices()[:1]))
    with TrainPrograms() as programs:
        programs.begin([24, 16], planned.program, shapes, planned.train, planned.steps_per_call)
    left.set()
    programs.wait_for(24)
    with pytest.raises(CancelledError):
        programs.wait_for(16)
    assert seen == [24]


def test_a_plan_has_the_shapes_and_shardings_of_what_is_put_on_the_devices():
    arguments = tiny_experiment(), DATASET, make_mesh(jax.devices()[:2])
    (planned, shapes), (run, state) = preparation.plan(*arguments), preparation.prepare(*arguments)
    assert planned.program.definition == run.program.definition
    for ours, theirs in zip(
        *map(jax.tree.leaves, ((shapes, planned.train, planned.evaluated), (state, run.train, run.evaluated))),
        strict=True,
    ):
        assert (ours.shape, ours.dtype, ours.sharding) == (theirs.shape, theirs.dtype, theirs.sharding)


def test_image_sizes_take_equal_parts_of_the_epochs():
    experiment = tiny_experiment(epochs=5, image_sizes=(16, 24, 16))
    run = preparation.Run(experiment, *[cast(Any, None)] * 4, steps_per_epoch=2, steps_per_call=1)
    assert [run.image_size_at(step) for step in range(10)] == [16, 16, 16, 16, 24, 24, 24, 24, 16, 16]
    assert run.image_sizes_from(0) == run.image_sizes_from(3) == [16, 24]
    assert run.image_sizes_from(8) == [16]
    plain = dataclasses.replace(run, experiment=tiny_experiment(epochs=5))
    assert plain.image_size_at(7) is None and plain.image_sizes_from(0) == [None]
