"""The training loop: the one place that reads clocks, writes files and prints."""

import dataclasses
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset
from convnext_jax.batches.resident import EpochOrders
from convnext_jax.sharding import replicated
from convnext_jax.run.environment import describe_environment
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.workdir.metrics_log import MetricsWriter, Progress, read_metrics
from convnext_jax.models import count_parameters
from convnext_jax.models.weights import Pretrained, start_from
from convnext_jax.run.prepare import Run, plan, put_on_devices
from convnext_jax.run.signals import StopSignals
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import StepMetrics
from convnext_jax.workdir.records import write_json


class Diverged(Exception):
    """The loss is no longer a number; the message names the step, the learning rate and the last good checkpoint."""


class Stopped(Exception):
    """A signal asked the run to stop, and its state is safe; the message says how to go on."""


def train(
    experiment: Experiment, dataset: Dataset, workdir: Path, mesh: Mesh, programs: TrainPrograms
) -> dict[str, Any]:
    """Trains from the latest checkpoint of the workdir, or from the start, to the end of the run.

    Args:
      experiment: the settings; they and the workdir have been checked.
      dataset: the data, on the host.
      workdir: where everything is written.
      mesh: the devices.
      programs: where the steps are compiled; several seeds of one experiment share it.

    Returns:
      What ``summary.json`` holds.

    Raises:
      Diverged: a loss or gradient that is not finite; nothing of it was saved.
      Stopped: a signal came, and the state is saved.
    """
    keep_latest, keep_best = experiment.run.keep_latest, experiment.run.keep_best
    with (
        StopSignals() as signals,
        Checkpoints(workdir / "checkpoints", keep_latest=keep_latest, keep_best=keep_best) as checkpoints,
    ):
        started = time.monotonic()
        first_step = checkpoints.latest_step() or 0
        planned, shapes = plan(experiment, dataset, mesh)
        sizes = planned.image_sizes_from(first_step)
        if sizes:
            begins = "resuming" if first_step else "starting"
            _say(f"{begins} at step {first_step} of {planned.total_steps}; compiling")
            programs.begin(sizes, planned.program, shapes, planned.train, planned.steps_per_call)
        # XLA compiles meanwhile.
        run, state = put_on_devices(planned, dataset)
        parameters = count_parameters(state.params)
        if first_step:
            state = checkpoints.restore_state(first_step, state)
        elif experiment.model.init_from is not None:
            state = _start_from_pretrained(Path(experiment.model.init_from), state, mesh)
        write_json(workdir / "environment.json", describe_environment() | {"first_step": first_step})
        if sizes:
            first = _compiled_first(sizes)
            for size in first:
                programs.wait_for(size)
            later = len(sizes) - len(first)
            meanwhile = f", {later} more image size{'s' * (later > 1)} while it trains" if later else ""
            _say(f"compiled in {time.monotonic() - started:.0f} s{meanwhile}")
            _train_from(first_step, run, state, workdir, checkpoints, signals, programs)
    return _finish(workdir, run, parameters)


def _compiled_first(sizes: list[int | None]) -> list[int | None]:
    """Those of a run's image sizes whose programs the first step waits for."""
    # On a GPU XLA tries kernels out while it compiles, and wants the device for itself.
    return sizes if jax.default_backend() == "gpu" else sizes[:1]


def _start_from_pretrained(directory: Path, state: TrainState, mesh: Mesh) -> TrainState:
    params, notes = start_from(Pretrained.read(directory), state.params)
    _say("; ".join([f"starting from the weights in {directory}", *notes]))
    params = jax.device_put(params, replicated(mesh))
    return dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params) if state.ema else {})


def _train_from(
    step: int,
    run: Run,
    state: TrainState,
    workdir: Path,
    checkpoints: Checkpoints,
    signals: StopSignals,
    programs: TrainPrograms,
) -> None:
    everywhere = replicated(run.program.mesh)
    seed = jax.device_put(jnp.uint32(run.experiment.run.seed), everywhere)
    orders = EpochOrders(run.experiment.run.seed, run.train.num_examples, everywhere)
    size = run.image_size_at(step)
    train_call = programs.wait_for(size)
    evaluation_steps = run.experiment.run.eval_every_epochs * run.steps_per_epoch
    writer = MetricsWriter(workdir, step)
    progress = Progress(run.total_steps, step, run.steps_per_epoch)
    reporter = _Reporter(run, writer, progress, checkpoints)
    try:
        reporter.restart_clock()
        while step < run.total_steps and signals.received is None:
            programs.check()  # what does not fit into memory is known early
            if run.image_size_at(step) != size:
                size = run.image_size_at(step)
                reporter.catch_up()
                while not programs.is_ready(size, seconds=0.2) and signals.received is None:
                    pass
                if signals.received is not None:
                    break  # what is not saved yet must not wait for a compiler
                train_call = programs.wait_for(size)
                reporter.restart_clock()
            # The state given in is donated: from here on only the returned one exists.
            state, metrics = train_call(state, run.train, orders.order(step // run.steps_per_epoch), seed)
            step += run.steps_per_call
            # One call behind, so that the device already works on the next steps while the host reads these figures.
            reporter.report_later(step, metrics)
            if step % evaluation_steps == 0 or step == run.total_steps:
                # No state is saved before its own figures have been looked at.
                reporter.catch_up()
                checkpoints.save(state, step, reporter.evaluate(step, state))
                reporter.restart_clock()
        reporter.catch_up()
        if step < run.total_steps:
            checkpoints.save(state, step)
            checkpoints.wait()
            at = f"step {step} of {run.total_steps}"
            raise Stopped(f"{signals.received}: saved {at} in {workdir}; run the same command to go on")
    finally:
        writer.close()
        progress.close()


class _Reporter:
    """Reads figures from the device, looks whether they are numbers, and passes them on."""

    def __init__(self, run: Run, writer: MetricsWriter, progress: Progress, checkpoints: Checkpoints) -> None:
        self._run, self._writer, self._progress, self._checkpoints = run, writer, progress, checkpoints
        self._pending: tuple[int, StepMetrics] | None = None
        self._clock = 0.0

    def restart_clock(self) -> None:
        """Leaves out of the throughput what came since the last report: compilation, evaluation, saving."""
        self._clock = time.monotonic()

    def report_later(self, step: int, metrics: StepMetrics) -> None:
        """Reports the call before this one, and keeps this one."""
        self.catch_up()
        self._pending = (step, metrics)

    def catch_up(self) -> None:
        """Waits for the kept call and reports it."""
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        metrics = jax.device_get(metrics)
        now = time.monotonic()
        images = self._run.steps_per_call * self._run.program.batch_size
        self._check_finite(step, metrics)
        self._pass_on(
            step,
            {
                "train/loss": float(np.mean(metrics.loss, dtype=np.float64)),
                "train/top1": float(np.mean(metrics.top1, dtype=np.float64)),
                "train/lr": float(metrics.lr[-1]),
                "train/grad_norm": float(np.mean(metrics.grad_norm, dtype=np.float64)),
                "train/images_per_second": images / (now - self._clock),
            },
        )
        self._clock = now

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates a state, and its average if it keeps one, on the run's whole evaluated split and reports both."""
        program, settings = self._run.program, self._run.experiment.run
        reported: dict[str, float] = {}
        for label, params in ((self._run.split, state.params), (f"{self._run.split}_ema", state.ema)):
            if not params:
                continue
            figures = evaluate_split(
                program.definition,
                params,
                self._run.evaluated,
                statistics=state.statistics,
                mean=program.mean,
                std=program.std,
                batch_size=settings.eval_batch_size,
                mesh=program.mesh,
                image_size=settings.evaluation_size,
            )
            if not math.isfinite(figures["loss"]):
                lr = float(np.asarray(program.schedule(step - 1)))
                self._diverged(step, f"the {label} loss", figures["loss"], lr)
            reported |= {f"{label}/{name}": figures[name] for name in ("loss", "top1", "top5")}
        self._pass_on(step, reported)
        return reported

    def _pass_on(self, step: int, figures: Mapping[str, float]) -> None:
        self._writer.write(step, step / self._run.steps_per_epoch, figures)
        self._progress.update(step, figures)

    def _check_finite(self, last_step: int, metrics: StepMetrics) -> None:
        finite = np.isfinite(metrics.loss) & np.isfinite(metrics.grad_norm)
        if finite.all():
            return
        first = int(np.argmin(finite))
        step = last_step - len(finite) + first + 1
        what = "the gradient norm" if np.isfinite(metrics.loss[first]) else "the loss"
        value = metrics.grad_norm[first] if np.isfinite(metrics.loss[first]) else metrics.loss[first]
        self._diverged(step, what, float(value), float(metrics.lr[first]))

    def _diverged(self, step: int, what: str, value: float, lr: float) -> None:
        self._checkpoints.wait()
        kept = self._checkpoints.latest_step()
        raise Diverged(
            f"{what} is {value} at step {step}, learning rate {lr:.3g}; "
            + (f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet")
            + "; lower config.optim.learning_rate or set config.optim.clip_norm"
        )


def _finish(workdir: Path, run: Run, parameters: int) -> dict[str, Any]:
    """Writes ``summary.json`` and ``curves.png`` from what was logged."""
    # Plotting is slow to import and wanted only here.
    from convnext_jax.report.curves import plot_curves

    lines = read_metrics(workdir / "metrics.jsonl")
    split, top1 = run.split, f"{run.split}/top1"
    evaluations = [line for line in lines if top1 in line]
    speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
    names = [name for name in evaluations[-1] if name in ("step", "epoch") or name.startswith(split)]
    best = max(evaluations, key=lambda line: line[top1])
    summary = {
        "split": split,
        "final": {name: evaluations[-1][name] for name in names},
        "best": {name: best[name] for name in names},
        "parameters": parameters,
        "train_examples": run.train.num_examples,
        f"{split}_examples": run.evaluated.num_examples,
        "seconds": lines[-1]["seconds"],
        "images_per_second_median": float(np.median(speeds)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    write_json(workdir / "summary.json", summary)
    model, data = run.experiment.model.name, run.experiment.data.name
    title = f"{model} on {data}: {split} top-1 {summary['final'][top1]:.2%}"
    plot_curves(lines, workdir / "curves.png", title, split)
    return summary


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
