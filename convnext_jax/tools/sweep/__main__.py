"""Trains the points of a sweep one after another and ranks them by their accuracy on the validation split.

``python -m convnext_jax.tools.sweep sweeps/digits_lr.py --workdir runs/digits_lr``

Each point is ``train.py`` in a process of its own: the very run that its arguments give by hand, on the devices that go
with its batch size and with all of their memory, and one that the system ends takes no other with it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from convnext_jax.tools import command_line
from convnext_jax.errors import UserError
from convnext_jax.run.signals import StopSignals
from convnext_jax.tools.sweep.points import Point, read_points
from convnext_jax.tools.sweep.results import FIGURES, Outcome, ranked, results_table, write_results

TRAIN = Path(__file__).parents[3] / "train.py"


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Trains the points of a sweep one after another and ranks them by their final accuracy on the validation split."
        "\nRun the same command again to go on: what has finished is not trained again, what failed is tried again.",
        "The sweep is a Python file:\n"
        '  BASE = "configs/digits.py"\n'
        '  POINTS = [{"optim.learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]\n'
        "Any field can be set for all points: --config.section.field=value. Exit status: 0 done, 2 usage error,\n"
        "1 no point came to its end, 75 stopped by a signal with the state saved: run the same command again.",
    )
    parser.add_argument("sweep", type=Path, metavar="FILE", help="the sweep, such as sweeps/digits_lr.py")
    parser.add_argument(
        "--workdir", type=Path, metavar="DIR", help="where a folder is made for each point (default: runs/<sweep>)"
    )
    arguments, overrides = parser.parse_known_args()
    workdir = arguments.workdir or Path("runs") / arguments.sweep.stem
    points = read_points(arguments.sweep, overrides, workdir)
    if not TRAIN.is_file():
        raise UserError(f"there is no {TRAIN}: run the sweep from a checkout of the project")
    outcomes, stopped_by = run_sweep(points, train_in_process)
    if outcomes:
        write_results(outcomes, str(arguments.sweep), workdir)
        print(results_table(outcomes))
        print(f"written to {workdir}/sweep.md, sweep.json and sweep.png")
    if stopped_by:
        done = f"{len(outcomes)} of {len(points)} points are done in {workdir}"
        print(f"{stopped_by}: {done}; run the same command to go on", file=sys.stderr)
        sys.exit(command_line.EXIT_TEMPFAIL)
    if all(outcome.figures is None for outcome in outcomes):
        command_line.fail(f"none of the {len(points)} points came to its end", command_line.EXIT_FAILURE)


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
                if status and (signals.received or status == command_line.EXIT_TEMPFAIL):
                    return ranked(outcomes), signals.received or "stopped"
            outcome = Outcome.of_failed(point, status) if status else Outcome.of_finished(point)
            outcomes.append(outcome)
            texts = zip(FIGURES, outcome.texts(), strict=True)
            _say(f"{about}: {outcome.reason or ', '.join(f'{name} {text}' for name, text in texts)}")
    return ranked(outcomes), None


def train_in_process(point: Point, signals: StopSignals) -> int:
    """Runs ``train.py`` for a point, with its output in the point's log; passes a signal on to it, once.

    Returns:
      Its exit status, negative where a signal ended it.
    """
    try:
        point.workdir.mkdir(parents=True, exist_ok=True)
        log = point.log.open("ab")
    except OSError as error:
        raise UserError(f"{point.log} cannot be written ({error.strerror}); choose another --workdir") from error
    command = [sys.executable, str(TRAIN), *point.arguments, "--workdir", str(point.workdir)]
    # A process group of its own: Ctrl-C comes through us alone, since a second signal would end the run unsaved.
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


if __name__ == "__main__":
    command_line.run_main(main)
