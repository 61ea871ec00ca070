"""Evaluates checkpoints: ``python evaluate.py --workdir runs/c100``."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_jax.precision import DTYPES
from convnext_jax.storage.cloud import to_path
from convnext_jax.tools import command_line

if TYPE_CHECKING:
    from argparse import Namespace

    from convnext_jax.evaluate.comparison import Group
    from convnext_jax.evaluate.offline import Evaluation


def main() -> None:
    """The command."""
    arguments = _parse()
    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate.comparison import compare, group_seeds
    from convnext_jax.run.compilation_cache import keep_compiled_programs

    keep_compiled_programs()
    evaluations = [
        each
        for workdir in arguments.workdir
        for step in arguments.step
        for weights in arguments.weights
        for each in _evaluate(arguments, workdir, step, weights)
    ]
    groups = group_seeds(evaluations)
    comparisons = [compared for group in groups[1:] if (compared := compare(groups[0], group)) is not None]
    _print(arguments.format, groups, comparisons)
    for path in _write(arguments, groups, comparisons):
        print(f"written to {path}", file=sys.stderr)


def _parse() -> "Namespace":
    parser = command_line.Parser(
        "Evaluates checkpoints of train.py exactly: each example of the split counts once.",
        "Writes evaluation.json and report.html. The machine may have other devices than the training had.\n"
        "Of a run with several seeds each is evaluated, and their mean and standard deviation are given. Several\n"
        "workdirs are compared with the first one, on the same examples.",
    )
    parser.add_argument(
        "--workdir", type=to_path, required=True, nargs="+", metavar="DIR", help="workdirs of train.py, one or several"
    )
    parser.add_argument(
        "--step", type=_list, default="latest", help="which checkpoints: latest (default), best, steps; a,b for several"
    )
    parser.add_argument("--weights", type=_list, default="raw", help="raw (default), ema, or raw,ema")
    parser.add_argument(
        "--split", default="test", choices=("test", "train", "validation"), help="which split (default: test)"
    )
    parser.add_argument("--data_dir", metavar="DIR", help="where the data are on this machine, if elsewhere")
    parser.add_argument(
        "--data_changed", choices=("ok",), help="evaluate on other examples of the same classes than those trained on"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="what to compute in, if not what the config says")
    parser.add_argument("--batch_size", type=int, help="images at a time (default: what fits); changes no figure")
    parser.add_argument(
        "--tta",
        default="none",
        choices=("none", "flip", "shifts"),
        help="average over views of an image: its mirror image, or that and four shifts",
    )
    parser.add_argument("--cost", action="store_true", help="also measure the time of an image, alone and in batches")
    parser.add_argument("--format", default="table", choices=("table", "markdown", "json"), help="what is printed")
    parser.add_argument("--no_report", action="store_true", help="do not write report.html")
    parser.add_argument(
        "--output", type=to_path, metavar="DIR", help="where the files go (default: the workdir, if it is one)"
    )
    arguments = parser.parse_args()
    if arguments.batch_size is not None and arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size}: must be at least 1")
    if unknown := [name for name in arguments.weights if name not in ("raw", "ema")]:
        parser.error(f"--weights {unknown[0]}: must be raw, ema or raw,ema")
    return arguments


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _evaluate(arguments: "Namespace", workdir: Path, step: str, weights: str) -> "list[Evaluation]":
    from convnext_jax.evaluate.offline import Selection, evaluate_workdir
    from convnext_jax.tools.benchmark.inference import inference_cost

    evaluations = evaluate_workdir(
        workdir,
        Selection(
            step=step,
            weights=weights,
            split=arguments.split,
            data_dir=arguments.data_dir,
            data_changed=arguments.data_changed == "ok",
            dtype=arguments.dtype,
            batch_size=arguments.batch_size,
            tta=arguments.tta,
        ),
    )
    if arguments.cost:
        for each in evaluations:
            forward = each.run.forward(arguments.tta)
            each.figures["cost"] = inference_cost(forward, each.params, each.batch_stats, each.examples.images)
    return evaluations


def _print(form: str, groups: "list[Group]", comparisons: list[dict[str, Any]]) -> None:
    from convnext_jax.report.evaluation_tables import about_rows, figure_rows, group_rows
    from convnext_jax.report.tables import markdown_table, plain_table

    if form == "json":
        print(json.dumps(_content(groups, comparisons), indent=2))
        return
    evaluations = [each for group in groups for each in group.evaluations]
    if len(evaluations) == 1:
        figures = evaluations[0].figures
        tables = [(figure_rows(figures), (1, 2)), (about_rows(figures), ())]
    else:
        rows = group_rows(groups)
        tables = [(rows, range(1, len(rows[0])))]
    for rows, numbers in tables:
        print(markdown_table(rows) if form == "markdown" else plain_table(rows, numbers=numbers))
        print()
    for compared in comparisons:
        print(compared["conclusion"])


def _content(groups: "list[Group]", comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what evaluation.json holds: one evaluation, the seeds of one run, or any number side by side."""
    from convnext_jax.evaluate.offline import summary_of

    if len(groups) == 1:
        return summary_of(groups[0].evaluations)
    return {"evaluations": {group.name: summary_of(group.evaluations) for group in groups}, "comparisons": comparisons}


def _write(arguments: "Namespace", groups: "list[Group]", comparisons: list[dict[str, Any]]) -> list[Path]:
    from convnext_jax.evaluate.offline import write_evaluation
    from convnext_jax.report.evaluation_page import write_pages

    output = arguments.output or (arguments.workdir[0] if len(arguments.workdir) == 1 else None)
    if output is None:
        print("give --output DIR to keep the figures of several workdirs", file=sys.stderr)
        return []
    paths = [write_evaluation(_content(groups, comparisons), output)]
    if not arguments.no_report:
        paths.append(write_pages(output, groups, comparisons, command=shlex.join(["python", *sys.argv])))
    return paths


if __name__ == "__main__":
    command_line.run_main(main)
