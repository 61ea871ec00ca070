"""Trains the points of a sweep one after another and ranks them by a figure on the validation split.

``python -m convnext_jax.tools.sweep sweeps/digits_lr.py --workdir runs/digits_lr``

Each point is ``train.py`` in a process of its own: the very run that its arguments would be by hand, with all of the
devices' memory. If the system ends one, the others are not affected.
"""

import sys
from pathlib import Path

from convnext_jax.errors import EXIT_FAILURE, EXIT_TEMPFAIL, UserError
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder
from convnext_jax.tools.sweep.points import read_points
from convnext_jax.tools.sweep.results import results_table, write_results
from convnext_jax.tools.sweep.runner import run_sweep, train_in_process


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Trains the points of a sweep one after another and ranks them by their final config.run.best_metric"
        "\non the validation split, which is the accuracy unless a configuration says otherwise."
        "\nRun the same command again to go on: what has finished is not trained again, what failed is tried again.",
        "The sweep is a Python file:\n"
        '  BASE = "configs/digits.py"\n'
        '  POINTS = [{"optim.learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3)]\n'
        "Any field can be set for all points: --config.section.field=value. Exit status: 0 done, 2 usage error,\n"
        "1 no point came to its end, 75 stopped by a signal with the state saved: run the same command again.",
    )
    parser.add_argument("sweep", type=local_path, metavar="FILE", help="the sweep, such as sweeps/digits_lr.py")
    parser.add_argument(
        "--workdir",
        type=local_path,
        metavar="DIR",
        help="where a folder is made for each point (default: runs/<sweep>)",
    )
    arguments, overrides = parser.parse_known_args()
    workdir = arguments.workdir or Path("runs") / arguments.sweep.stem
    check_new_folder("--workdir", workdir)
    if (workdir / "config.json").exists():
        raise UserError(f"{workdir} is the workdir of a run of train.py; choose another --workdir for the sweep")
    points = read_points(arguments.sweep, overrides, workdir)
    outcomes, stopped_by = run_sweep(points, train_in_process)
    if outcomes:
        write_results(outcomes, str(arguments.sweep), workdir)
        print(results_table(outcomes))
        print(f"written to {workdir}/sweep.md, sweep.json and sweep.png")
    if stopped_by:
        done = f"{len(outcomes)} of {len(points)} points are done in {workdir}"
        print(f"{stopped_by}: {done}; run the same command to go on", file=sys.stderr)
        sys.exit(EXIT_TEMPFAIL)
    if all(outcome.figures is None for outcome in outcomes):
        command_line.fail(f"none of the {len(points)} points came to its end", EXIT_FAILURE)


if __name__ == "__main__":
    command_line.run_main(main)
