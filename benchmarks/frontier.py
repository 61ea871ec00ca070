"""Draws accuracy against time from the records of runs: what can be had in half an hour, in an hour, in a night.

python benchmarks/frontier.py benchmarks/results/cifar100_cpu*.json --output docs/images/frontier.png
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent.parent))

from convnext_jax.errors import UserError, first_line
from convnext_jax.report.page import light_series
from convnext_jax.storage.files import parse_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

METRIC = "test/top1"
_MARKERS = "osD^"  # the next one where the colors begin again


class Run(NamedTuple):
    """A run with one seed in the picture.

    Attributes:
      label: the record's name.
      minutes: since the run began, at each evaluation.
      accuracies: top-1 on the test split at each of them, from 0 to 1.
    """

    label: str
    minutes: list[float]
    accuracies: list[float]


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "")
    parser.add_argument(
        "records", type=Path, nargs="+", metavar="FILE", help="JSON files that benchmarks/record_run.py wrote"
    )
    parser.add_argument("--output", type=Path, required=True, help="the PNG file to write")
    options = parser.parse_args()
    check_new_file("--output", options.output)
    runs = [run for path in options.records for run in runs_of(path)]
    frontier_chart(runs).savefig(options.output, dpi=120)
    print(f"{len(runs)} runs: {options.output}")


def runs_of(path: Path) -> list[Run]:
    """Returns the runs of a record, one for each seed.

    Raises:
      UserError: the file is no record of a run that read the test split.
    """
    try:
        record: Any = parse_json(path.read_bytes())
        curves = record["curves"] if "curves" in record else {"": record["curve"]}
        found = []
        for seed, curve in curves.items():
            points = [point for point in curve if METRIC in point]
            minutes, accuracies = [point["seconds"] / 60 for point in points], [point[METRIC] for point in points]
            found.append(Run(path.stem + f", seed {seed}" * bool(seed), minutes, accuracies))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of a run: {first_line(error)}; make one with record_run.py") from error
    if not all(run.minutes for run in found):
        raise UserError(f"{path} has no {METRIC}: the run did not read the test split; leave it out")
    return found


def frontier_chart(runs: list[Run]) -> Figure:
    """Returns a chart of accuracy over minutes, with the last figure of each run as a dot."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes, colors = figure.subplots(), light_series()
    for number, run in enumerate(runs):
        color, percent = colors[number % len(colors)], [100 * accuracy for accuracy in run.accuracies]
        marker = _MARKERS[number // len(colors) % len(_MARKERS)]
        axes.plot(run.minutes, percent, "-", color=color, linewidth=1)
        axes.plot(run.minutes[-1:], percent[-1:], marker, color=color, label=f"{run.label}: {percent[-1]:.1f}%")
    axes.set_xlabel("minutes of the run, evaluations included")
    axes.set_ylabel("top-1 accuracy, test split (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    command_line.run_main(main)
