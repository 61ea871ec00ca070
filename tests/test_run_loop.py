"""The loop: what it writes, that a stopped run goes on as if it had not been stopped, and how it fails."""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import RESNET
from tiny import tiny_dataset, tiny_experiment
from tiny_run import write_run

from convnext_jax.config import Experiment, RunConfig
from convnext_jax.errors import UserError
from convnext_jax.run.loop import Stopped, train
from convnext_jax.run.prepare import make_plan, prepare
from convnext_jax.run.reporter import Diverged
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.best_metric import BestMetric
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.metrics_log import read_metrics

DATASET = tiny_dataset()


@functools.cache
def _shared_compiler(settings: str) -> StepCompiler:
    return StepCompiler()


def shared_compiler(experiment: Experiment) -> StepCompiler:
    """One compiler for all runs here that have the same steps; most of a small run is its compilation."""
    same = RunConfig(epochs=experiment.run.epochs, batch_size=experiment.run.batch_size)
    return _shared_compiler(repr((dataclasses.replace(experiment, run=same), experiment.run.image_sizes)))


def run(experiment: Experiment, workdir: Path, compiler: StepCompiler | None = None) -> dict[str, Any]:
    """A run, with the programs that others have compiled unless a compiler is given."""
    mesh = make_mesh(jax.devices()[:1])
    compiler = compiler or shared_compiler(experiment)
    with prepare(experiment, workdir, mesh, compiler=compiler, dataset=DATASET) as prepared:
        return train(prepared)


class Watched(StepCompiler):
    """Calls ``before(step)`` before each call to the device, and lets ``after(state)`` change what it returns."""

    def __init__(
        self,
        before: Callable[[int], None] = lambda step: None,
        after: Callable[[Any], Any] = lambda state: state,
        compiler: StepCompiler | None = None,
    ) -> None:
        super().__init__()
        self._before, self._after, self._compiler = before, after, compiler or StepCompiler()

    def begin(self, *asked: Any) -> None:
        self._compiler.begin(*asked)

    def is_ready(self, size: int | None, seconds: float) -> bool:
        return self._compiler.is_ready(size, seconds)

    def wait_for(self, size: int | None) -> Any:
        compiled = self._compiler.wait_for(size)

        def call(state: Any, *others: Any) -> tuple[Any, Any]:
            self._before(int(state.step))
            state, metrics = compiled(state, *others)
            return self._after(state), metrics

        return call


def without_clocks(workdir: Path) -> list[dict[str, float]]:
    """The log of a run, without what no two runs share."""
    clocks = ("seconds", "train/images_per_second")
    return [
        {name: value for name, value in line.items() if name not in clocks}
        for line in read_metrics(workdir / "metrics.jsonl")
    ]


def last_params(experiment: Experiment, workdir: Path, item: str = "params") -> Any:
    plan = make_plan(experiment, DATASET, Sharding(make_mesh(jax.devices()[:1])))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        assert step is not None
        return checkpoints.restore(step, {item: getattr(plan.state, item)})[item]


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot takes half a second. The run of `whole`, which is older than this, has one."""
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Four epochs of five steps without a stop."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, run(tiny_experiment(), workdir)


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
    assert summary["test_examples"] == 13 and summary["train_examples"] == 40 and summary["parameters"] == 8_100
    assert json.loads((workdir / "environment.json").read_text())["versions"]["jax"] == jax.__version__
    assert json.loads((workdir / "config.json").read_text())["format"] == 2
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()} >= {"15", "20"}


def test_a_finished_run_is_not_run_again(whole: tuple[Path, dict[str, Any]]):
    workdir, summary = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    assert run(tiny_experiment(), workdir) == summary
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("damaged", [False, True])
def test_a_finished_run_without_checkpoints_keeps_its_log(tmp_path: Path, damaged: bool):
    workdir = write_run(tmp_path / "run")
    (workdir / "summary.json").write_text("{}")
    (workdir / "metrics.jsonl").write_text('{"step": 10, "epoch": 2.0, "seconds": 1.0}\n')
    log = (workdir / "metrics.jsonl").read_bytes()
    if damaged:
        for folder in (workdir / "checkpoints").iterdir():
            (folder / "_CHECKPOINT_METADATA").unlink()
    else:
        shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="the log of a finished run and no checkpoints: restore them, or choose anoth"):
        run(tiny_experiment(), workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == log


def test_a_device_that_keeps_the_host_until_its_steps_are_done_does_not_distort_their_rate(tmp_path: Path):
    experiment = tiny_experiment(eval_every_epochs=2)
    run(experiment, tmp_path, Watched(lambda step: time.sleep(0.4), compiler=shared_compiler(experiment)))
    rates = [line["train/images_per_second"] for line in read_metrics(tmp_path / "metrics.jsonl") if "train/lr" in line]
    assert len(rates) == 4 and max(rates) <= 40 / 0.4


@pytest.mark.parametrize("steps_per_dispatch", [2, 3])
def test_the_number_of_steps_in_a_call_changes_no_bit(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, steps_per_dispatch: int
):
    # An epoch of five steps has no divisor but one: calls of 3 and 2, or of 2, 2 and 1.
    run(tiny_experiment(steps_per_dispatch=steps_per_dispatch), tmp_path)
    ours, theirs = (
        [line for line in without_clocks(workdir) if "test/loss" in line] for workdir in (tmp_path, whole[0])
    )
    assert ours == theirs
    lengths = np.diff([0, *(line["step"] for line in without_clocks(tmp_path) if "train/loss" in line)])
    assert lengths.max() == steps_per_dispatch and lengths.min() >= 1


def test_a_run_stopped_in_mid_epoch_goes_on_as_if_it_had_not_been_stopped(tmp_path: Path):
    # Other images before and after the stop, and calls of other lengths.
    experiment = tiny_experiment(steps_per_dispatch=1, image_sizes=(24, 16))
    run(experiment, tmp_path / "unbroken")

    def preempt(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=r"SIGTERM: saved step 8 of 20 in .*run the same command to go on"):
        run(experiment, tmp_path / "broken", Watched(preempt, compiler=shared_compiler(experiment)))
    assert read_metrics(tmp_path / "broken" / "metrics.jsonl")[-1]["step"] == 8
    run(tiny_experiment(steps_per_dispatch=4, image_sizes=(24, 16)), tmp_path / "broken")

    evaluated = [
        [line for line in without_clocks(tmp_path / name) if "test/loss" in line] for name in ("broken", "unbroken")
    ]
    assert evaluated[0] == evaluated[1]
    for item in ("params", "ema", "opt_state"):
        trees = [last_params(experiment, tmp_path / name, item) for name in ("unbroken", "broken")]
        for ours, theirs in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_run_that_crashes_goes_on_from_its_last_checkpoint_between_evaluations(tmp_path: Path):
    experiment = tiny_experiment(steps_per_dispatch=1, checkpoint_steps=3)
    run(experiment, tmp_path / "unbroken")

    def crash(step: int) -> None:
        if step == 9:
            raise MemoryError

    with pytest.raises(MemoryError):
        run(experiment, tmp_path / "broken", Watched(crash, compiler=shared_compiler(experiment)))
    with Checkpoints(tmp_path / "broken" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [5, 8]  # evaluated, and three steps later
    run(experiment, tmp_path / "broken")
    assert without_clocks(tmp_path / "broken") == without_clocks(tmp_path / "unbroken")
    for ours, theirs in zip(
        *(jax.tree.leaves(last_params(experiment, tmp_path / name, "ema")) for name in ("broken", "unbroken")),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("minutes", "expected"), [(0.0, 15), (1e-9, 18)])
def test_checkpoints_are_saved_by_the_clock(tmp_path: Path, minutes: float, expected: int):
    def crash(step: int) -> None:
        if step == 18:
            raise MemoryError

    experiment = tiny_experiment(steps_per_dispatch=3, checkpoint_minutes=minutes)
    with pytest.raises(MemoryError):
        run(experiment, tmp_path, Watched(crash, compiler=shared_compiler(experiment)))
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        # Those between evaluations take no evaluated one's place, and only the latest of them is kept.
        assert [step for step in checkpoints.steps() if step >= 10] == sorted({10, 15, expected})


@pytest.mark.parametrize("step", [5, 20])
def test_a_state_whose_evaluation_a_signal_prevented_is_evaluated_at_the_next_start(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, step: int
):
    def preempt(first: int) -> None:
        if first == step - 5:
            os.kill(os.getpid(), signal.SIGTERM)

    experiment = tiny_experiment()
    with pytest.raises(Stopped, match=f"SIGTERM: saved step {step} of 20"):
        run(experiment, tmp_path, Watched(preempt, compiler=shared_compiler(experiment)))
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == step and not checkpoints.metrics(step)
    summary = run(experiment, tmp_path)
    assert without_clocks(tmp_path) == without_clocks(whole[0])
    assert summary["best"] == whole[1]["best"]
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.metrics(20)["test/top1"] == summary["final"]["test/top1"]


def test_a_state_that_turns_out_broken_at_the_next_start_is_not_kept(tmp_path: Path):
    def preempt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def break_parameters(state: Any) -> Any:
        return dataclasses.replace(state, params=nan(state.params)) if int(state.step) == 10 else state

    experiment = tiny_experiment()
    with pytest.raises(Stopped, match="saved step 10"):
        run(experiment, tmp_path, Watched(preempt, break_parameters, compiler=shared_compiler(experiment)))
    with pytest.raises(Diverged, match=r"test loss is nan at step 10, .*the checkpoint of step 5 is kept"):
        run(experiment, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [5]


def test_a_network_with_running_statistics_is_averaged_accumulated_and_taken_up_again(tmp_path: Path):
    experiment = tiny_experiment(RESNET, epochs=2, steps_per_dispatch=2)
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, name="resnet18", remat=True),
        optim=dataclasses.replace(experiment.optim, accumulation=2),
    )
    run(experiment, tmp_path / "unbroken")

    def preempt(step: int) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="saved step"):
        run(experiment, tmp_path / "broken", Watched(preempt, compiler=shared_compiler(experiment)))
    run(experiment, tmp_path / "broken")
    assert without_clocks(tmp_path / "broken") == without_clocks(tmp_path / "unbroken")
    running = [last_params(experiment, tmp_path / "broken", item) for item in ("batch_stats", "ema_batch_stats")]
    ours, average = map(jax.tree.leaves, running)
    assert max(float(np.abs(one - other).max()) for one, other in zip(ours, average, strict=True)) > 1e-3
    last = [line for line in without_clocks(tmp_path / "broken") if "test/loss" in line][-1]
    assert last["test_ema/loss"] != last["test/loss"] and last["test_ema/loss"] < np.log(4) + 0.5


def nan(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf * jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_checkpoint(tmp_path: Path):
    def break_after_two_epochs(state: Any) -> Any:
        return dataclasses.replace(state, opt_state=nan(state.opt_state)) if int(state.step) == 8 else state

    experiment = tiny_experiment(steps_per_dispatch=1)
    # A broken moment of Adam breaks the parameters in step 9, and the loss in step 10.
    with pytest.raises(
        Diverged, match=r"the loss is nan at step 10, learning rate 0\.00\d+; the checkpoint of step 5 is kept; lower"
    ):
        run(experiment, tmp_path, Watched(after=break_after_two_epochs, compiler=shared_compiler(experiment)))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()] == ["5"]
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] < 10
    assert not (tmp_path / "summary.json").exists()


def test_evaluation_that_is_not_finite_is_never_saved(tmp_path: Path):
    def break_parameters(state: Any) -> Any:
        return dataclasses.replace(state, params=nan(state.params))

    experiment = tiny_experiment()
    with pytest.raises(Diverged, match="the test loss is nan at step 5, .*there is no checkpoint yet"):
        run(experiment, tmp_path, Watched(after=break_parameters, compiler=shared_compiler(experiment)))
    assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]


def test_the_best_checkpoint_is_that_of_the_ema_if_there_is_one(whole: tuple[Path, dict[str, Any]]):
    workdir, summary = whole
    accuracies = [line["test_ema/top1"] for line in read_metrics(workdir / "metrics.jsonl") if "test/loss" in line]
    assert accuracies[int(summary["best"]["step"]) // 5 - 1] == max(accuracies)


@pytest.mark.parametrize(("metric", "expected"), [("top1", "test/top1"), ("ema/loss", "test_ema/loss")])
def test_the_best_checkpoint_is_chosen_by_the_named_metric(tmp_path: Path, metric: str, expected: str):
    summary = run(tiny_experiment(best_metric=metric, keep_latest=1), tmp_path)
    evaluations = [line for line in read_metrics(tmp_path / "metrics.jsonl") if expected in line]
    sign = -1 if metric.endswith("loss") else 1
    best = max(evaluations, key=lambda line: sign * line[expected])
    assert summary["best"]["step"] == best["step"]
    with Checkpoints(tmp_path / "checkpoints", best=BestMetric(metric, sign > 0), read_only=True) as checkpoints:
        assert expected in checkpoints.metrics(20)
        kept = checkpoints.steps()
    # Of equals Orbax keeps the latest.
    equals = [line["step"] for line in evaluations if line[expected] == best[expected]]
    assert 20 in kept and set(kept) & set(equals)


# --- compilation


def test_it_trains_on_the_first_images_while_the_next_size_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    waited: list[tuple[int | None, int]] = []

    class Noting(StepCompiler):
        def wait_for(self, size: int | None) -> Any:
            waited.append((size, len(read_metrics(tmp_path / "metrics.jsonl"))))
            return super().wait_for(size)

    run(tiny_experiment(image_sizes=(24, 16)), tmp_path, Noting())
    # The second size is not waited for before two epochs, each with its evaluation, are done.
    assert dict(reversed(waited)) == {24: 0, 16: 4}
    assert re.search(r"compiled in \d+ s, 1 more image size while it trains", capsys.readouterr().err)


def test_on_a_gpu_it_trains_when_all_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    experiment = tiny_experiment(image_sizes=(24, 16))
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, dtype="float32"))
    run(experiment, tmp_path)
    assert re.search(r"compiled in \d+ s\n", capsys.readouterr().err)


def test_a_size_that_cannot_be_compiled_ends_the_run_at_once(tmp_path: Path):
    class Failing(Watched):
        def check(self) -> None:
            if (tmp_path / "metrics.jsonl").read_text():
                raise RuntimeError("16 pixels do not fit")

    with pytest.raises(RuntimeError, match="16 pixels do not fit"):
        run(tiny_experiment(steps_per_dispatch=1, image_sizes=(24, 16)), tmp_path, Failing())
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] < 5


def test_a_signal_does_not_wait_for_the_next_size_to_be_compiled(tmp_path: Path):
    class NeverReady(StepCompiler):
        def is_ready(self, size: int | None, seconds: float) -> bool:
            if size == 16:
                os.kill(os.getpid(), signal.SIGTERM)
            return size != 16

    with pytest.raises(Stopped, match="SIGTERM: saved step 10 of 20"):
        run(tiny_experiment(image_sizes=(24, 16)), tmp_path, NeverReady())


def test_what_is_not_begun_when_the_run_ends_is_not_compiled():
    plan = make_plan(tiny_experiment(image_sizes=(24, 16)), DATASET, Sharding(make_mesh(jax.devices()[:1])))
    with StepCompiler() as compiler:
        compiler.begin([24, 16], plan.spec, plan.state)
    compiler.wait_for(24)
    with pytest.raises(CancelledError):
        compiler.wait_for(16)
