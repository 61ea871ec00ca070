"""The training loop: the one place that reads clocks and decides when to evaluate, to save and to stop."""

import contextlib
import math
import time
from typing import Any

import jax
import numpy as np

from convnext_jax.batches.order import call_length
from convnext_jax.models.parameters import count_parameters
from convnext_jax.run.prepare import Run
from convnext_jax.run.reporter import Reporter
from convnext_jax.run.saving import SaveFailed, Saver
from convnext_jax.run.signals import NOTHING_NEW, StopSignals
from convnext_jax.run.summary import write_summary
from convnext_jax.sharding import put


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
    sizes = plan.image_sizes_from(run.first_step)
    if sizes or _is_not_evaluated(run):
        with StopSignals() as signals:
            if sizes:
                started = time.monotonic()
                first = _compiled_first(sizes)
                with signals.at_once(lambda: NOTHING_NEW):  # the other processes see that this one is gone
                    for size in first:
                        compiler.wait_for(size)
                later = len(sizes) - len(first)
                meanwhile = f", {later} more image size{'s' * (later > 1)} while it trains" if later else ""
                run.output.say(f"compiled in {time.monotonic() - started:.0f} s{meanwhile}")
            _Training(run, signals).go_on_to_the_end()
    return write_summary(run, parameters) if run.output.lead else {}


def _compiled_first(sizes: list[int | None]) -> list[int | None]:
    """Returns those of a run's image sizes whose programs the first step waits for."""
    # On a GPU XLA tries out kernels while it compiles, and wants the device for itself.
    return sizes if jax.default_backend() == "gpu" else sizes[:1]


def _is_evaluated(step: int, run: Run) -> bool:
    """Returns whether the state after a step is one that is evaluated."""
    evaluation_steps = run.plan.experiment.run.eval_every_epochs * run.plan.steps_per_epoch
    return step > 0 and (step % evaluation_steps == 0 or step == run.plan.total_steps)


def _is_not_evaluated(run: Run) -> bool:
    """Returns whether the run goes on from a state whose evaluation was interrupted."""
    return _is_evaluated(run.first_step, run) and not run.checkpoints.metrics(run.first_step)


class _Training:
    """A run between two calls to the device: the step that it has come to, and its state after that."""

    def __init__(self, run: Run, signals: StopSignals) -> None:
        self._run, self._signals, self._peers = run, signals, run.peers
        self._stopped_by: str | None = None  # the signal that the processes agreed to stop for
        self._saver = Saver(run.checkpoints, run.output, run.peers)
        self._reporter = Reporter(run, self._saver)
        self._step, self._state = run.first_step, run.state
        settings = run.plan.experiment.run
        self._most_steps = run.plan.most_steps
        self._interval = _Interval(self._step, settings.checkpoint_minutes, settings.checkpoint_steps)
        self._to_evaluate = _is_not_evaluated(run)
        self._figures: dict[str, float] | None = None  # of the state that was evaluated last

    def go_on_to_the_end(self) -> None:
        """Trains, evaluates and saves; raises Diverged and Stopped."""
        output, plan = self._run.output, self._run.plan
        with self._peers.together():
            output.open_log(self._step, plan.total_steps, plan.steps_per_epoch, plan.experiment)
        completed = False
        try:
            if self._to_evaluate:
                self._evaluate_and_save()
            self._reporter.restart_clock()
            self._take_steps()
            self._reporter.catch_up()
            message = self._save_and_wait()
            if self._step < plan.total_steps or self._to_evaluate:
                raise Stopped(f"{self._stopped_by}: {message}")
            completed = True
        finally:
            is_whole = output.close_log(completed=completed)
        if not is_whole:
            raise SaveFailed(
                f"{output.workdir / 'metrics.jsonl'} could not be written to its end; summary.json lacks it"
            )

    def _take_steps(self) -> None:
        """Takes the steps up to the last one, or until a signal comes."""
        plan, compiler = self._run.plan, self._run.compiler
        seed = put(np.uint32(plan.experiment.run.seed), plan.spec.sharding.replicated)
        size, train_call = None, None
        while self._step < plan.total_steps and not self._must_stop():
            compiler.check()  # what does not fit into memory is known early
            if self._run.lock is not None:
                self._run.lock.check()
            if train_call is None or plan.image_size_at(self._step) != size:
                size = plan.image_size_at(self._step)
                self._reporter.catch_up()
                while not all(self._peers.gather(compiler.is_ready(size, seconds=0.2))) and not self._must_stop():
                    pass
                if self._stopped_by is not None:
                    break  # what is not saved yet must not wait for a compiler
                train_call = compiler.wait_for(size)
                self._reporter.restart_clock()
            num_steps = call_length(self._step, plan.steps_per_epoch, self._most_steps)
            feed = self._run.source.feed(self._step, num_steps)
            # The state given to a call is donated: from then on only the one that it returned exists.
            self._state, metrics = train_call(self._state, feed, _on_device(num_steps, self._run), seed)
            self._step += num_steps
            self._figures = None
            self._to_evaluate = _is_evaluated(self._step, self._run)
            # One call behind, so that the device already works on the next steps while the host reads these figures.
            self._reporter.report_later(self._step, num_steps, metrics)
            if self._must_stop():
                break  # what is not saved yet must not wait for an evaluation
            if self._to_evaluate:
                self._evaluate_and_save()
            elif self._peers.of_lead(self._interval.is_over(self._step)) or self._is_last_before_decay():
                self._save()

    def _must_stop(self) -> bool:
        """Returns whether a signal has come, to any process. All learn of it between the same two calls."""
        self._stopped_by = self._peers.first_of(self._signals.received)
        return self._stopped_by is not None

    def _is_last_before_decay(self) -> bool:
        """Returns whether no later state is one that a longer run could go on from."""
        plan, step = self._run.plan, self._step
        before = plan.steps_before_decay
        return before is not None and step <= before < step + call_length(step, plan.steps_per_epoch, self._most_steps)

    def _evaluate_and_save(self) -> None:
        # No state is saved before its own figures have been looked at, unless a signal comes.
        self._reporter.catch_up()
        # With others a process can neither save nor end by itself; they all stop after the evaluation.
        alone = self._peers.count == 1
        with self._signals.at_once(self._save_and_wait) if alone else contextlib.nullcontext():
            self._figures = self._reporter.evaluate(self._step, self._state)
        self._to_evaluate = False
        self._save()

    def _save(self) -> None:
        self._reporter.catch_up()
        self._saver.save(self._step, self._state, self._figures)
        self._interval.restart(self._step)
        self._reporter.restart_clock()

    def _save_and_wait(self) -> str:
        if self._step == 0:
            return NOTHING_NEW
        self._saver.save_and_wait(self._step, self._state, self._figures)
        of_all = f"of {self._run.plan.total_steps} in {self._run.output.workdir}"
        return f"saved step {self._step} {of_all}; run the same command to go on"


class _Interval:
    """Says when the next checkpoint between evaluations is due: after so many minutes, or so many steps."""

    def __init__(self, step: int, minutes: float, steps: int) -> None:
        self._seconds, self._steps = 60 * minutes or math.inf, steps or math.inf
        self.restart(step)

    def restart(self, step: int) -> None:
        """Begins again at a step that is saved."""
        self._step, self._started = step, time.monotonic()

    def is_over(self, step: int) -> bool:
        """Returns whether a step is due to be saved."""
        return step - self._step >= self._steps or time.monotonic() - self._started >= self._seconds


def _on_device(number: int, run: Run) -> jax.Array:
    return put(np.int32(number), run.plan.spec.sharding.replicated)
