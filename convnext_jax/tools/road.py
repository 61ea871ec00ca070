"""Prints the road from ResNet to ConvNeXt, and draws it: ``python -m convnext_jax.tools.road runs/road_*``."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, writing
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.tools.compare import check_workdirs


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Prints the steps from ResNet to ConvNeXt: what each changes, its parameters, its multiply-adds and the paper's"
        "\nfigures. With workdirs of configs/papers/road.py also what they came to, with a picture.",
        "Runs that differ in their seed alone are the seeds of one step. Runs that train otherwise than the first are\n"
        "left out, with the reason.",
    )
    parser.add_argument("workdir", nargs="*", type=to_path, help="workdirs of train.py, finished")
    sizes = "ConvNeXt-T's road, ConvNeXt-B's, or the first with a quarter of the channels (default: tiny)"
    parser.add_argument("--size", choices=("tiny", "base", "quarter"), default="tiny", help=sizes)
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="(default: 224; 32 with --small_images)")
    parser.add_argument("--num_classes", type=int, metavar="N", default=1000, help="(default: 1000)")
    parser.add_argument("--small_images", action="store_true", help="with the stems for small images")
    parser.add_argument("--picture", type=local_path, metavar="FILE", help="(default: road.png, if there are workdirs)")
    arguments = parser.parse_args()
    if arguments.workdir:
        check_workdirs(arguments.workdir)
        arguments.picture = arguments.picture or Path("road.png")
        check_new_file("--picture", arguments.picture)
    elif arguments.picture:
        parser.error("--picture draws runs: give their workdirs")
    if arguments.image_size is None:
        arguments.image_size = 32 if arguments.small_images else 224

    measured = _measured(arguments.workdir) if arguments.workdir else {}
    rows = _rows(arguments)
    print(_table(rows, arguments.size, measured))
    if measured:
        _draw(rows, measured, arguments)


@dataclasses.dataclass(frozen=True)
class Row:
    """A step, with what its network costs.

    Attributes:
      step: a `convnext_jax.models.road_steps.Step`.
      parameters: of the network.
      macs: multiply-adds for one image.
    """

    step: Any
    parameters: int
    macs: int


def _rows(arguments: argparse.Namespace) -> list[Row]:
    from convnext_jax.models.costs import parameters_and_macs  # JAX takes seconds to import
    from convnext_jax.models.road_steps import STEPS, road

    steps, rows = road(arguments.size, small_images=arguments.small_images), []
    side = arguments.image_size
    for step in STEPS:
        rows.append(Row(step, *parameters_and_macs(steps[step.name], side, side, arguments.num_classes)))
    return rows


def _table(rows: Sequence[Row], size: str, measured: Mapping[str, Sequence[float]]) -> str:
    published = size == "tiny"  # those of the other road are not at hand
    head = ["step", "what changes", "parameters", "multiply-adds"]
    head += ["paper: multiply-adds", "paper: ImageNet top-1"] if published else []
    table = [head + (["measured top-1"] if measured else [])]
    for row in rows:
        cells = [row.step.name, row.step.what, f"{row.parameters:,}", f"{row.macs / 1e9:.3f} G"]
        if published:
            cells += [f"{row.step.gmacs} G" if row.step.gmacs else "", f"{row.step.top1}%"]
        if measured:
            values = measured.get(row.step.name, ())
            cells.append(" ".join(f"{value:.2f}%" for value in values) or "not measured")
        table.append(cells)
    return markdown_table(table)


def _measured(workdirs: Sequence[Path]) -> dict[str, list[float]]:
    """Returns the top-1 of the last epoch in percent, by steps, one value for each seed."""
    from convnext_jax.models.road_steps import step_of
    from convnext_jax.report.run_groups import Run, find_runs

    found, measured, first = find_runs(workdirs), {}, None
    skipped = list(found.skipped)

    def training(run: Run) -> Any:
        settings = run.experiment.to_dict()
        settings["run"] = settings["run"] | {"seed": 0, "seeds": 1}
        return {section: settings[section] for section in ("data", "augment", "optim", "run")}

    for run in found.runs:
        step = step_of(run.experiment.model.architecture)
        first = first or run
        if step is None:
            skipped.append(f"{run.workdir}: its network is no step of the road")
        elif not run.finished:
            skipped.append(f"{run.workdir} has not finished")
        elif training(run) != training(first):
            skipped.append(f"{run.workdir} was trained otherwise than {first.workdir}")
        else:
            last = run.evaluations[-1]
            measured.setdefault(step, []).append(100.0 * last[f"{run.examples.split}/top1"])
    for reason in skipped:
        print(f"skipped: {reason}", file=sys.stderr)
    if not measured:
        raise UserError("none of these runs is a finished step of the road; train some with configs/papers/road.py")
    return measured


def _draw(rows: Sequence[Row], measured: Mapping[str, Sequence[float]], arguments: argparse.Namespace) -> None:
    from convnext_jax.report.road_chart import Bar, road_chart

    bars = [Bar(row.step.what, row.macs / 1e9, measured.get(row.step.name, ())) for row in rows]
    with writing(arguments.picture, "--picture"):
        road_chart(bars, f"From ResNet to ConvNeXt, {arguments.size}").savefig(arguments.picture, dpi=120)
    print(f"drawn in {arguments.picture}")


if __name__ == "__main__":
    command_line.run_main(main)
