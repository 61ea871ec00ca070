"""The training loop: the one place that reads clocks and decides when to evaluate, to save and to stop."""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.order import call_length
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.files import write_json
from convnext_jax.models.parameters import count_parameters
from convnext_jax.run.prepare import Run
from convnext_jax.run.signals import StopSignals
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import MOST_STEPS, Metrics
from convnext_jax.workdir.checkpoints import ITEMS, best_metric
from convnext_jax.workdir.metrics_log import figure_name, read_metrics


class Diverged(Exception):
    """The loss is no longer a number. The message names the step, the learning rate and the last good checkpoint."""


class Stopped(Exception):
    """A signal asked the run to stop, and its state is safe. The message says how to go on."""


def train(run: Run) -> dict[str, Any]:
    """Trains a run from where it is to its end.

    Args:
      run: the run, as ``prepare`` made it.

    Returns:
      What ``summary.json`` holds; nothing in any process but the lead.

    Raises:
      Diverged: a loss or gradient that is not finite; nothing of it was saved.
      Stopped: a signal came, and the state is saved.
    """
    plan, compiler = run.plan, run.compiler
    parameters = count_parameters(run.state.params)
    if sizes := plan.image_sizes_from(run.first_step):
        with StopSignals() as signals:
            started = time.monotonic()
            first = _compiled_first(sizes)
            for size in first:
                compiler.wait_for(size)
            later = len(sizes) - len(first)
            meanwhile = f", {later} more image size{'s' * (later > 1)} while it trains" if later else ""
            run.output.say(f"compiled in {time.monotonic() - started:.0f} s{meanwhile}")
            _train_steps(run, signals)
    run.checkpoints.wait()
    return _finish(run, parameters) if run.output.lead else {}


def _compiled_first(sizes: list[int | None]) -> list[int | None]:
    """Returns those of a run's image sizes whose programs the first step waits for."""
    # On a GPU XLA tries out kernels while it compiles, and wants the device for itself.
    return sizes if jax.default_backend() == "gpu" else sizes[:1]


def _train_steps(run: Run, signals: StopSignals) -> None:
    plan, compiler, reporter = run.plan, run.compiler, _Reporter(run)
    seed = jax.device_put(jnp.uint32(plan.experiment.run.seed), plan.spec.sharding.replicated)
    # The state given to a call is donated: from then on only the one that it returned exists.
    step, state = run.first_step, run.state
    size = plan.image_size_at(step)
    train_call = compiler.wait_for(size)
    most_steps = min(plan.experiment.run.steps_per_dispatch, MOST_STEPS)
    evaluation_steps = plan.experiment.run.eval_every_epochs * plan.steps_per_epoch
    run.output.open_log(step, plan.total_steps, plan.steps_per_epoch)
    try:
        reporter.restart_clock()
        while step < plan.total_steps and signals.received is None:
            compiler.check()  # what does not fit into memory is known early
            if plan.image_size_at(step) != size:
                size = plan.image_size_at(step)
                reporter.catch_up()
                while not compiler.is_ready(size, seconds=0.2) and signals.received is None:
                    pass
                if signals.received is not None:
                    break  # what is not saved yet must not wait for a compiler
                train_call = compiler.wait_for(size)
                reporter.restart_clock()
            num_steps = call_length(step, plan.steps_per_epoch, most_steps)
            feed = run.source.feed(step, num_steps)
            state, metrics = train_call(state, feed, _on_device(num_steps, run), seed)
            step += num_steps
            # One call behind, so that the device already works on the next steps while the host reads these figures.
            reporter.report_later(step, num_steps, metrics)
            if step % evaluation_steps == 0 or step == plan.total_steps:
                # No state is saved before its own figures have been looked at.
                reporter.catch_up()
                figures = reporter.evaluate(step, state)
                run.checkpoints.save(step, _items(state), figures)
                reporter.restart_clock()
        reporter.catch_up()
        if step < plan.total_steps:
            run.checkpoints.save(step, _items(state))
            run.checkpoints.wait()
            at = f"step {step} of {plan.total_steps}"
            raise Stopped(f"{signals.received}: saved {at} in {run.output.workdir}; run the same command to go on")
    finally:
        run.output.close_log()


def _on_device(number: int, run: Run) -> jax.Array:
    return jax.device_put(np.int32(number), run.plan.spec.sharding.replicated)


def _items(state: TrainState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in ITEMS}


class _Reporter:
    """Reads figures from the device, checks that they are numbers, and passes them on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pending: tuple[int, int, Metrics] | None = None
        self._clock = 0.0

    def restart_clock(self) -> None:
        """Leaves out of the throughput what came since the last report: compilation, evaluation, saving."""
        self._clock = time.monotonic()

    def report_later(self, step: int, num_steps: int, metrics: Metrics) -> None:
        """Reports the call before this one, and keeps this one."""
        self.catch_up()
        self._pending = (step, num_steps, metrics)

    def catch_up(self) -> None:
        """Waits for the kept call and reports it."""
        if self._pending is None:
            return
        (step, num_steps, metrics), self._pending = self._pending, None
        values = {name: array[:num_steps] for name, array in jax.device_get(metrics).items()}
        now = time.monotonic()
        self._check_finite(step, values)
        images = num_steps * self._run.plan.experiment.run.batch_size
        lr, grad_norm = values.pop("lr"), values.pop("grad_norm")
        figures = {f"train/{name}": float(np.mean(array, dtype=np.float64)) for name, array in values.items()}
        figures["train/lr"] = float(lr[-1])
        figures["train/grad_norm"] = float(np.mean(grad_norm, dtype=np.float64))
        figures["train/images_per_second"] = images / (now - self._clock)
        self._run.output.figures(step, figures)
        self._clock = now

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates a state, and its average if it keeps one, on the whole evaluated split, and reports both."""
        plan, reported = self._run.plan, {}
        weights = {"": (state.params, state.batch_stats), "ema/": (state.ema, state.ema_batch_stats)}
        for prefix, (params, batch_stats) in weights.items():
            if not params:
                continue
            figures = evaluate_split(
                plan.spec.definition,
                params,
                batch_stats,
                self._run.evaluated,
                task=plan.spec.task,
                normalization=plan.record.normalization,
                batch_size=plan.experiment.run.eval_batch_size,
                sharding=plan.spec.sharding,
                image_size=plan.experiment.run.evaluation_size,
            )
            if not math.isfinite(figures["loss"]):
                lr = float(np.asarray(plan.spec.schedule(step - 1)))
                what = f"the {figure_name(plan.split, prefix + 'loss').replace('/', ' ')}"
                self._diverged(step, what, figures["loss"], lr)
            reported |= {
                figure_name(plan.split, prefix + name): figures[name] for name in sorted(plan.spec.task.metrics)
            }
        self._run.output.figures(step, reported)
        return reported

    def _check_finite(self, last_step: int, values: Mapping[str, np.ndarray]) -> None:
        loss, grad_norm = values["loss"], values["grad_norm"]
        finite = np.isfinite(loss) & np.isfinite(grad_norm)
        if finite.all():
            return
        first = int(np.argmin(finite))
        step = last_step - len(finite) + first + 1
        what, value = ("the gradient norm", grad_norm) if np.isfinite(loss[first]) else ("the loss", loss)
        self._diverged(step, what, float(value[first]), float(values["lr"][first]))

    def _diverged(self, step: int, what: str, value: float, lr: float) -> None:
        checkpoints = self._run.checkpoints
        checkpoints.wait()
        kept = checkpoints.latest_step()
        raise Diverged(
            f"{what} is {value} at step {step}, learning rate {lr:.3g}; "
            + (f"the checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet")
            + "; lower config.optim.learning_rate or set config.optim.clip_norm"
        )


def _finish(run: Run, parameters: int) -> dict[str, Any]:
    """Writes ``summary.json`` and ``curves.png`` from what was logged."""
    # Plotting is slow to import, and only needed here.
    from convnext_jax.report.curves import plot_curves

    workdir, plan = run.output.workdir, run.plan
    lines = read_metrics(workdir / "metrics.jsonl")
    main = figure_name(plan.split, next(iter(plan.spec.task.metrics)))
    evaluations = [line for line in lines if main in line]
    speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
    names = [name for name in evaluations[-1] if name in ("step", "epoch") or name.startswith(plan.split)]
    best = max(evaluations, key=best_metric(plan.experiment, plan.spec.task).score)
    summary = {
        "split": plan.split,
        "final": {name: evaluations[-1][name] for name in names},
        "best": {name: best[name] for name in names},
        "parameters": parameters,
        "train_examples": plan.spec.source.num_examples,
        f"{plan.split}_examples": plan.evaluated.num_examples,
        "seconds": lines[-1]["seconds"],
        "images_per_second_median": float(np.median(speeds)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    write_json(workdir / "summary.json", summary)
    model, data = plan.experiment.model.name, plan.experiment.data.name
    title = f"{model} on {data}: {plan.split} top-1 {summary['final'][main]:.2%}"
    plot_curves(lines, workdir / "curves.png", title, plan.split)
    return summary
