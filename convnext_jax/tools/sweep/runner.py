"""Trains the points of a sweep, each in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from convnext_jax.errors import EXIT_TEMPFAIL, writing
from convnext_jax.run.signals import StopSignals
from convnext_jax.tools.sweep.points import Point
from convnext_jax.tools.sweep.results import Outcome, figure_names, ranked

TRAIN = ("-m", "convnext_jax.tools.train")


def run_sweep(points: Sequence[Point], train: Callable[[Point, StopSignals], int]) -> tuple[list[Outcome], str | None]:
    """Trains the points that have not finished.

    Args:
      points: all of the sweep.
      train: trains a point, as long as no signal comes, and returns the exit status of ``train.py``.

    Returns:
      How the points ended that did, ranked, and what stopped the sweep before its end: the name of a signal, or None.
    """
    outcomes: list[Outcome] = []
    with StopSignals() as signals:
        for number, point in enumerate(points, 1):
            about = f"point {number} of {len(points)}, {point.label}"
            status = 0
            if not point.summary.exists():
                if signals.received:
                    return ranked(outcomes), signals.received
                _say(f"{about}: see {point.log}")
                status = train(point, signals)
                if status and (signals.received or status == EXIT_TEMPFAIL):
                    return ranked(outcomes), signals.received or "stopped"
            outcome = Outcome.of_failed(point, status) if status else Outcome.of_finished(point)
            outcomes.append(outcome)
            names = figure_names([outcome.point])
            texts = zip(names, outcome.texts(names), strict=True)
            _say(f"{about}: {outcome.reason or ', '.join(f'{name} {text}' for name, text in texts)}")
    return ranked(outcomes), None


def train_in_process(point: Point, signals: StopSignals) -> int:
    """Runs ``train.py`` for a point, with its output in the point's log; passes a signal on to it, once.

    Returns:
      Its exit status, negative where a signal ended it.
    """
    with writing(point.log, "--workdir"):
        point.workdir.mkdir(parents=True, exist_ok=True)
        log = point.log.open("ab")
    command = [sys.executable, *TRAIN, *point.arguments, "--workdir", str(point.workdir)]
    # A process group of its own, so that Ctrl-C comes through us alone. A second signal would end the run unsaved.
    with log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0) as process:
        asked = False
        try:
            while process.poll() is None:
                if signals.received and not asked:
                    process.terminate()
                    asked = True
                time.sleep(0.1)
        except BaseException:  # a second Ctrl-C
            process.kill()
            raise
    return process.returncode


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
