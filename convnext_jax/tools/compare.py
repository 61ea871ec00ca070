"""Compares runs: ``python -m convnext_jax.tools.compare runs/*``, and ``--watch`` while they train."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convnext_jax.errors import UserError, writing
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder

if TYPE_CHECKING:
    from convnext_jax.report.run_groups import Found


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Compares the runs of any set of workdirs: one table, the differences to the first with their 95% intervals"
        "\nover seeds, and top-1, top-5, loss and learning rate by epoch and by wall time. Runs that differ in"
        "\nconfig.run.seed alone are the seeds of one group. Runs that still train are shown as far as they are.",
        "Writes comparison.html, comparison.png and comparison.md, whose content is printed.\n"
        "Exit status: 0 done, 2 usage error. Ctrl-C ends --watch, and the files stay.",
    )
    parser.add_argument("workdir", nargs="+", type=to_path, help="workdirs of train.py, of one seed or of several")
    parser.add_argument(
        "--output", type=local_path, metavar="DIR", default=Path("comparison"), help="(default: comparison)"
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="look every so many seconds (10 if none are given) and write the page anew, until all runs have\n"
        "finished; it loads itself again, without a server. Give it after the workdirs",
    )
    arguments = parser.parse_args()
    if arguments.watch is not None and not 1 <= arguments.watch <= 86_400:
        parser.error(f"--watch {arguments.watch:g}: must be 1 to 86400 seconds")
    check_workdirs(arguments.workdir)
    check_new_folder("--output", arguments.output)
    with writing(arguments.output, "--output"):
        arguments.output.mkdir(parents=True, exist_ok=True)

    from convnext_jax.report.run_groups import find_runs  # it takes seconds to import

    found = find_runs(arguments.workdir)
    for reason in found.skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    if not found.runs and not found.waiting:
        raise UserError("none of these folders is a workdir that can be read; give some that train.py made")
    if arguments.watch is None and not found.runs:
        waiting = ", ".join(map(str, found.waiting))
        raise UserError(f"nothing is logged yet in {waiting}; try again later, or wait for it with --watch")
    if arguments.watch is not None:
        found = watch(arguments.workdir, found, arguments.output, arguments.watch)

    from convnext_jax.report.comparison import Comparison

    comparison = Comparison.of(found)
    with writing(arguments.output, "--output"):
        comparison.write(arguments.output)
    print(comparison.markdown())
    print(f"written to {arguments.output}/comparison.html, comparison.png and comparison.md")


def check_workdirs(workdirs: Sequence[Path]) -> None:
    """Raises UserError if none of the folders is a workdir, before anything slow is imported."""
    if not any((workdir / "config.json").exists() for workdir in workdirs):
        names = ", ".join(map(str, workdirs[:5])) + (", ..." if len(workdirs) > 5 else "")
        raise UserError(f"{names}: no workdir of train.py is among them, none has a config.json; give runs/*")


def watch(workdirs: Sequence[Path], found: "Found", output: Path, every: float) -> "Found":
    """Writes the page whenever there is news, until all runs have finished or Ctrl-C comes.

    Args:
      workdirs: the folders to read.
      found: what they hold now.
      output: the folder to write into.
      every: seconds between two looks.

    Returns:
      What the folders hold at the end.
    """
    from convnext_jax.report.comparison import Comparison
    from convnext_jax.report.run_groups import find_runs

    shown = None
    try:
        while not found.finished:
            if found != shown:
                with writing(output, "--output"):
                    Comparison.of(found).write_live(output, every)
                if shown is None:
                    print(f"open {output}/comparison.html; Ctrl-C ends this", file=sys.stderr)
                shown = found
            time.sleep(every)
            found = find_runs(workdirs)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return found


if __name__ == "__main__":
    command_line.run_main(main)
