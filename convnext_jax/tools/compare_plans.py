"""Compares plans of one run on more and more chips: ``python -m convnext_jax.tools.compare_plans plan_*.json``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, first_line, writing
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.cloud import local_path
from convnext_jax.storage.files import parse_json
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Compares plans of one run, written by tools.plan with --json: the modeled time of a step, images per second,"
        "\nand what share of a step the collectives and the optimizer take. It prints Markdown.",
        "Plans with one batch show how far more chips help (strong scaling), those with as many images a chip what\n"
        "the collectives cost (weak scaling). Nothing was run: these are figures of the compiler's model.",
    )
    parser.add_argument("plan", nargs="+", type=local_path, metavar="FILE", help="JSON files of tools.plan, of TPUs")
    parser.add_argument("--picture", type=local_path, metavar="FILE", help="images per second and shares, by chips")
    arguments = parser.parse_args()
    if arguments.picture is not None:
        check_new_file("--picture", arguments.picture)
    plans = sorted((read_plan(file) for file in arguments.plan), key=lambda plan: (plan.chip, plan.chips, plan.batch))
    _check_same_run(plans)
    print(plans_table(plans))
    if arguments.picture is not None:
        _draw(plans, arguments.picture)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compared of a plan.

    Attributes:
      file: where it was read.
      run: the settings of the run, without those that may differ.
      network: its name.
      chip: the kind of chip.
      topology: as it was given, such as ``v5e:2x4``.
      chips: their number.
      batch: images of a step, on all chips.
      seconds: modeled, of a step.
      collectives: the share of that for collectives.
      optimizer: the share of that for the optimizer.
    """

    file: Path
    run: Any
    network: str
    chip: str
    topology: str
    chips: int
    batch: int
    seconds: float
    collectives: float
    optimizer: float

    @property
    def images_per_second(self) -> float:
        """Of all chips."""
        return self.batch / self.seconds


def read_plan(file: Path) -> Plan:
    """Reads a file that ``tools.plan --json`` wrote; raises UserError if it is none, or has no modeled time."""
    try:
        plan = parse_json(file.read_bytes())
        name, settings = plan["topology"], plan["settings"]
        if plan["refusal"]:
            raise UserError(f"{file} has no modeled time, since its run does not fit on {name}; leave it out")
        seconds, cycles = plan["modeled_step_seconds"], plan["cycles_by_kind"]
        if seconds is None or cycles is None:
            raise UserError(f"{file} has no modeled time, since {name} is no TPU; give plans of TPUs")
        exchange = plan["roofline_seconds"]["interconnect"]
        optimizer = cycles.get("optimizer", 0) / sum(cycles.values()) * (seconds - exchange)
        return Plan(
            file=file,
            run=_without_layout(settings),
            network=settings["model"]["name"],
            chip=plan["chip"]["name"],
            topology=name,
            chips=int(plan["chips"]),
            batch=int(plan["batch_size"]),
            seconds=float(seconds),
            collectives=exchange / seconds,
            optimizer=optimizer / seconds,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"{file} is no plan ({first_line(error)}); write one with python -m convnext_jax.tools.plan --json FILE"
        ) from error


def _without_layout(settings: dict[str, Any]) -> dict[str, Any]:
    left_out = ("batch_size", "fsdp", "epochs")
    run = {name: value for name, value in settings["run"].items() if name not in left_out}
    return settings | {"run": run}


def _check_same_run(plans: Sequence[Plan]) -> None:
    for plan in plans[1:]:
        sections = [name for name in plan.run if plan.run[name] != plans[0].run.get(name)]
        if sections:
            differ = ", ".join(f"config.{name}" for name in sections)
            raise UserError(
                f"{plan.file} and {plans[0].file} plan different runs: they differ in {differ};"
                " compare plans that differ in their chips and their batch alone"
            )
    seen: dict[tuple[str, int], Path] = {}
    for plan in plans:
        other = seen.setdefault((plan.topology, plan.batch), plan.file)
        if other != plan.file:
            raise UserError(f"{plan.file} and {other} plan the same batch on {plan.topology}; leave one out")


def plans_table(plans: Sequence[Plan]) -> str:
    """Returns a row of Markdown for each plan."""
    rows = [["topology", "chips", "batch", "images a chip", "ms a step", "images/s", "images/s a chip"]]
    rows[0] += ["collectives", "optimizer"]
    for plan in plans:
        cells = [plan.topology, f"{plan.chips:,}", f"{plan.batch:,}", f"{plan.batch / plan.chips:g}"]
        cells += [f"{1000 * plan.seconds:.2f}", f"{plan.images_per_second:,.0f}"]
        cells += [f"{plan.images_per_second / plan.chips:,.0f}", f"{plan.collectives:.0%}", f"{plan.optimizer:.0%}"]
        rows.append(cells)
    return markdown_table(rows)


def series(plans: Sequence[Plan]) -> dict[str, list[Plan]]:
    """Returns the plans that can be joined by a line, by its label: one chip, and one batch or as many images a chip.

    A plan that shares neither with another is a line of its own.
    """
    lines: dict[str, list[Plan]] = {}
    for plan in plans:
        lines.setdefault(f"{plan.chip}, batch {plan.batch:,}", []).append(plan)
        lines.setdefault(f"{plan.chip}, {plan.batch / plan.chips:g} images a chip", []).append(plan)
    joined = {label: line for label, line in lines.items() if len(line) > 1}
    drawn = {id(plan) for line in joined.values() for plan in line}
    alone = {f"{plan.topology}, batch {plan.batch:,}": [plan] for plan in plans if id(plan) not in drawn}
    return joined | alone


def _draw(plans: Sequence[Plan], file: Path) -> None:
    from convnext_jax.report.scaling_chart import ScalingPoint, scaling_chart  # a second to import

    lines = {
        label: [ScalingPoint(plan.chips, plan.images_per_second, plan.collectives, plan.optimizer) for plan in line]
        for label, line in series(plans).items()
    }
    with writing(file, "--picture"):
        scaling_chart(lines, plans[0].network).savefig(file, dpi=120)
    print(f"drawn in {file}")


if __name__ == "__main__":
    command_line.run_main(main)
