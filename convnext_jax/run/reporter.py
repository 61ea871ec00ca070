"""The figures of a run: read from the device, verified to be numbers, logged and shown."""

import math
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from convnext_jax.errors import Failure
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.run.prepare import Run
from convnext_jax.run.saving import Saver
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import Metrics
from convnext_jax.workdir.metrics_log import figure_name


class Diverged(Failure):
    """The loss is no longer a number.

    Attributes:
      reason: what is not finite, at which step and learning rate.
      step: the step.
      kept: the step of the latest checkpoint, 0 if there is none.
    """

    everywhere = True

    def __init__(self, reason: str, step: int, kept: int, run: Run) -> None:
        self.reason, self.step, self.kept = reason, step, kept
        workdir, settings = run.output.workdir, run.plan.experiment.run
        remedy = "lower config.optim.learning_rate, set config.optim.clip_norm or config.run.on_divergence=rollback"
        if settings.on_divergence == "rollback":  # in the same workdir another learning rate would be refused
            remedy = (
                f"all of config.run.rollbacks={settings.rollbacks} are used: begin with a lower"
                " config.optim.learning_rate or a tighter config.optim.clip_norm in another --workdir, or raise"
                " config.run.rollbacks"
            )
        super().__init__(
            f"{reason}; {f'the checkpoint of step {kept} is kept' if kept else 'there is no checkpoint yet'};"
            f" {remedy};"
            f" python -m convnext_jax.tools.replay --workdir {workdir} --step {step} shows what the step was given"
        )


class Reporter:
    """Reads figures from the device, checks that they are numbers, and passes them on."""

    def __init__(self, run: Run, saver: Saver) -> None:
        self._run, self._saver = run, saver
        self._pending: tuple[int, int, Metrics, Future[float]] | None = None
        self._clock = 0.0
        # On a GPU a call can keep the host until its steps are done, so that the one before is read long after its end.
        self._waiter = ThreadPoolExecutor(1, "steps")

    def restart_clock(self) -> None:
        """Leaves out of the throughput what came since the last report: compilation, evaluation, saving."""
        self._clock = time.monotonic()

    def report_later(self, step: int, num_steps: int, metrics: Metrics) -> None:
        """Reports the call before this one, and keeps this one."""
        # Asked for now, the copy comes before the next call on the device. Asked for later, it waits for that call.
        for array in jax.tree.leaves(metrics):
            array.copy_to_host_async()
        finished = self._waiter.submit(_time_when_ready, metrics)
        self.catch_up()
        self._pending = (step, num_steps, metrics, finished)

    def catch_up(self) -> None:
        """Waits for the kept call and reports it."""
        if self._pending is None:
            return
        (step, num_steps, metrics, finished), self._pending = self._pending, None
        values = {name: array[:num_steps] for name, array in jax.device_get(metrics).items()}
        now = finished.result()
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
        if self._run.plan.experiment.run.on_divergence == "rollback":
            # Whatever the learning rate, from the state before this step it would happen again.
            self._saver.discard(step - 1)
        self._diverged(step, what, float(value[first]), float(values["lr"][first]))

    def _diverged(self, step: int, what: str, value: float, lr: float) -> None:
        kept = self._saver.discard(step)  # it may have been saved while its evaluation was interrupted
        reason = f"{what} is {value} at step {step}, learning rate {lr:.3g}"
        raise Diverged(reason, step, kept, self._run)


def _time_when_ready(metrics: Metrics) -> float:
    """Waits for the figures of a call and returns when they came."""
    jax.block_until_ready(metrics)
    return time.monotonic()
