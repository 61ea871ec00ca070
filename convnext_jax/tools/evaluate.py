"""Evaluates checkpoints: ``convnext-jax evaluate --workdir runs/c100``, or ``python evaluate.py`` in a checkout."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convnext_jax.errors import UserError
from convnext_jax.precision import DTYPES
from convnext_jax.storage.cloud import local_path, to_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_folder, data_options

if TYPE_CHECKING:
    from argparse import Namespace

    from convnext_jax.evaluate.comparison import Group
    from convnext_jax.evaluate.offline import Evaluation
    from convnext_jax.evaluate.selected import AnyEvaluation


@data_options("data_dir")
def main() -> None:
    """The command."""
    arguments = _parse()
    _check_tasks(arguments)
    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.evaluate.comparison import compare, group_seeds, why_not_compared
    from convnext_jax.run.compilation_cache import keep_compiled_programs
    from convnext_jax.run.jax_settings import start_jax

    start_jax()
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
    for group in groups[1:]:
        if reason := why_not_compared(groups[0], group):
            print(f"{group.name} is not compared with {groups[0].name}: {reason}", file=sys.stderr)
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
    parser.add_argument(
        "--robustness", action="store_true", help="also measure on images that are corrupted, shifted and scaled"
    )
    parser.add_argument(
        "--corrupted", type=local_path, metavar="DIR", help="also measure on CIFAR-10-C, ImageNet-C or the like"
    )
    parser.add_argument("--format", default="table", choices=("table", "markdown", "json"), help="what is printed")
    parser.add_argument("--no_report", action="store_true", help="do not write report.html")
    parser.add_argument(
        "--output", type=to_path, metavar="DIR", help="where the files go (default: the workdir, if it is one)"
    )
    arguments = parser.parse_args()
    if arguments.batch_size is not None and arguments.batch_size < 1:
        parser.error(f"--batch_size {arguments.batch_size}: must be at least 1")
    if arguments.corrupted and not arguments.corrupted.is_dir():
        parser.error(f"--corrupted {arguments.corrupted}: there is no such folder")
    if unknown := [name for name in arguments.weights if name not in ("raw", "ema")]:
        parser.error(f"--weights {unknown[0]}: must be raw, ema or raw,ema")
    if arguments.output is not None or len(arguments.workdir) == 1:
        check_new_folder("--output", arguments.output or arguments.workdir[0])
    return arguments


def _check_tasks(arguments: "Namespace") -> None:
    """Raises UserError for options that the runs' task has no use for, and for runs that cannot stand in one table."""
    from convnext_jax.workdir.claim import read_experiment

    tasks = {workdir: read_experiment(workdir).task for workdir in arguments.workdir}
    with_masks = [workdir for workdir, task in tasks.items() if task.has_masks]
    without = [workdir for workdir, task in tasks.items() if not task.has_masks]
    if with_masks and without:
        raise UserError(
            f"{with_masks[0]} predicts masks and {without[0]} does not, so they have no figure in common; evaluate them"
            " one at a time"
        )
    given = {
        "--robustness": arguments.robustness,
        "--corrupted": arguments.corrupted is not None,
        "--tta": arguments.tta != "none",
    }
    for option, is_given in given.items():
        if with_masks and is_given:
            name = f"config.task.name={tasks[with_masks[0]].name}"
            raise UserError(f"{option} is for classification, and {with_masks[0]} has {name}; leave it out")


def _list(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _evaluate(arguments: "Namespace", workdir: Path, step: str, weights: str) -> "Sequence[AnyEvaluation]":
    from convnext_jax.evaluate.offline import evaluate_workdir
    from convnext_jax.evaluate.selected import Selection

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
    for each in evaluations:
        each.figures.update(_further_figures(arguments, each))
    return evaluations


def _further_figures(arguments: "Namespace", evaluation: "AnyEvaluation") -> dict[str, Any]:
    """Returns the figures that are asked for and need more forward passes."""
    from convnext_jax.evaluate.offline import Evaluation

    figures: dict[str, Any] = {}
    if arguments.cost:
        from convnext_jax.tools.benchmark.inference import inference_cost

        forward, images = evaluation.predictor.forward, evaluation.examples.images
        figures["cost"] = inference_cost(forward, evaluation.params, evaluation.batch_stats, images)
    if isinstance(evaluation, Evaluation):
        figures |= _robustness_figures(arguments, evaluation)
    return figures


def _robustness_figures(arguments: "Namespace", evaluation: "Evaluation") -> dict[str, Any]:
    figures: dict[str, Any] = {}
    examples, run = evaluation.examples, evaluation.run
    if arguments.robustness:
        from convnext_jax.evaluate.robustness import NUMBER_OF_CHANGES, measure_robustness

        with _progress(NUMBER_OF_CHANGES, "robustness") as done:
            figures["robustness"] = measure_robustness(
                lambda change: done(evaluation.predict(examples.images, change)),
                examples.labels,
                examples.images.shape[1:],
            )
    if arguments.corrupted:
        from convnext_jax.evaluate.corrupted_sets import read_corrupted_set
        from convnext_jax.evaluate.robustness import measure_corrupted_set

        parts = read_corrupted_set(arguments.corrupted, run.record.class_names, examples.images.shape[1:])
        with _progress(None, str(arguments.corrupted)) as done:
            measured = measure_corrupted_set(
                lambda images: done(evaluation.predict(images)), parts, evaluation.figures["top1"]
            )
        figures["corrupted"] = {"folder": str(arguments.corrupted), **measured}
    return figures


@contextlib.contextmanager
def _progress(total: int | None, title: str) -> Iterator[Callable[[Any], Any]]:
    """Shows on a terminal how often the function that it yields was called, which returns what it is given."""
    from tqdm import tqdm

    with tqdm(total=total, desc=title, leave=False, disable=None) as bar:

        def done(result: Any) -> Any:
            bar.update()
            return result

        yield done


def _print(form: str, groups: "list[Group]", comparisons: list[dict[str, Any]]) -> None:
    from convnext_jax.report.evaluation_tables import (
        about_rows,
        corruption_rows,
        figure_rows,
        group_rows,
        mask_class_rows,
    )
    from convnext_jax.report.tables import markdown_table, plain_table

    if form == "json":
        print(json.dumps(_content(groups, comparisons), indent=2))
        return
    evaluations = [each for group in groups for each in group.evaluations]
    if len(evaluations) == 1:
        figures = evaluations[0].figures
        tables: list[tuple[Sequence[Sequence[str]], Sequence[int]]] = [(figure_rows(figures), (1, 2))]
        if "confusion" in figures:
            tables.append((mask_class_rows(figures["per_class"]), range(1, 6)))
        tables.append((about_rows(figures), ()))
        for measured in (figures.get("robustness", {}).get("corruptions"), figures.get("corrupted")):
            if measured:
                rows = corruption_rows(measured)
                tables.append((rows, range(1, len(rows[0]))))
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
    from convnext_jax.report.evaluation_files import write_pages

    output = arguments.output or (arguments.workdir[0] if len(arguments.workdir) == 1 else None)
    if output is None:
        print("give --output DIR to keep the figures of several workdirs", file=sys.stderr)
        return []
    paths = [write_evaluation(_content(groups, comparisons), output)]
    if not arguments.no_report:
        paths.append(write_pages(output, groups, comparisons, command=command_line.typed()))
    return paths


if __name__ == "__main__":
    command_line.run_main(main)
