"""Figures for an experiment tracker besides ``metrics.jsonl`` and TensorBoard: Weights & Biases or MLflow.

A tracker may be slow, or fail, without an effect on the training: it has a thread of its own, and its first error is
its last. The identifier is kept in ``tracker.json``, so that a run that goes on continues the same tracked run.
"""

import importlib.util
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, first_line, writing
from convnext_jax.storage.files import parse_json, write_json
from convnext_jax.workdir.tracker import TrackedRun, Tracker

PATIENCE = 60.0  # seconds that the end of a run waits for its tracker
_NOT_COMPARED = ("epoch", "seconds", "train/images_per_second")  # of a step that is done again

log = logging.getLogger(__name__)


def _open_wandb(run: TrackedRun) -> Tracker:
    from convnext_jax.workdir.wandb_tracker import WandbTracker

    return WandbTracker(run)


def _open_mlflow(run: TrackedRun) -> Tracker:
    from convnext_jax.workdir.mlflow_tracker import MlflowTracker

    return MlflowTracker(run)


# config.run.tracker: what opens it. Each has the name of its package.
TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {"wandb": _open_wandb, "mlflow": _open_mlflow}


def check_tracker(name: str) -> None:
    """Raises UserError if the package of a tracker is not installed.

    Args:
      name: ``config.run.tracker``.
    """
    if name in TRACKERS and importlib.util.find_spec(name) is None:
        raise UserError(f"config.run.tracker={name}: {name} is not installed; run `pip install {name}`")


def open_tracker(
    name: str,
    workdir: Path,
    settings: Mapping[str, Mapping[str, Any]],
    lines: Sequence[Mapping[str, float]],
    first_step: int,
) -> Tracker | None:
    """Opens the tracker of a run.

    Args:
      name: ``config.run.tracker``.
      workdir: the folder of the run.
      settings: its configuration.
      lines: what earlier starts logged. A tracker that is new to the run is given what is before the first step. One
        that knows it is not given again what comes to the same after that.
      first_step: the step that this start goes on from.

    Returns:
      The tracker; None for ``none``, and after a warning if the tracker fails for a run that it knows.

    Raises:
      UserError: the tracker cannot be used for a run that it does not know yet.
    """
    if name not in TRACKERS:
        return None
    check_tracker(name)
    known = _identifier(workdir)
    title = f"{workdir.parent.name}/{workdir.name}" if workdir.name.startswith("seed_") else workdir.name
    run = TrackedRun(known or uuid.uuid4().hex[:16], title, workdir, settings)
    try:
        opened = TRACKERS[name](run)
    except Exception as error:  # whatever the tracker's library raises
        problem = f"config.run.tracker={name} cannot be used ({first_line(error)})"
        if known is None:
            raise UserError(f"{problem}; mend that, or set config.run.tracker=none") from error
        log.warning("%s; the training goes on without it", problem)
        return None
    with writing(workdir, "--workdir"):
        write_json(workdir / "tracker.json", {"identifier": run.identifier})
    tracker = BackgroundTracker(opened, name, [line for line in lines if known and line["step"] > first_step])
    for line in lines:
        if known is None and line["step"] <= first_step:
            tracker.log(int(line["step"]), {key: value for key, value in line.items() if key != "step"})
    return tracker


def _identifier(workdir: Path) -> str | None:
    """Returns the identifier of a run that has been tracked before, else None."""
    try:
        return str(parse_json((workdir / "tracker.json").read_bytes())["identifier"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


class BackgroundTracker:
    """Hands figures to a tracker in a thread of its own. After an error, which is warned of, it does nothing more.

    Args:
      tracker: the tracker.
      name: of the tracker, for the warning.
      again: lines of the log whose steps are done again.
    """

    def __init__(self, tracker: Tracker, name: str, again: Iterable[Mapping[str, float]]) -> None:
        self._tracker, self._name = tracker, name
        self._again = {_key(line): _content(line) for line in again}
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Passes figures on, unless an earlier start has tracked the same."""
        line = {"step": step, **figures}
        if self._again.pop(_key(line), None) != _content(line):
            copy = dict(figures)
            self._queue.put(lambda: self._tracker.log(step, copy))

    def close(self, *, completed: bool) -> None:
        """Waits for the tracker, for a minute at most."""
        self._queue.put(lambda: self._tracker.close(completed=completed))
        self._queue.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            log.warning("%s did not take all figures within %.0f s; metrics.jsonl has them", self._name, PATIENCE)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call()
            except Exception as error:  # whatever the tracker's library raises
                reason = first_line(error)
                log.warning(
                    "%s failed (%s); the training goes on without it, and metrics.jsonl has all figures",
                    self._name,
                    reason,
                )
                return


def _key(line: Mapping[str, float]) -> tuple[float, frozenset[str]]:
    return line["step"], frozenset(_content(line))


def _content(line: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name not in _NOT_COMPARED}
