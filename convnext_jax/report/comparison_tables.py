"""The tables of a comparison of runs, and what a reader must know to read them."""

import datetime
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.evaluate.uncertainty import difference_of_means
from convnext_jax.report.group_names import differing_settings, setting_text, short_fields
from convnext_jax.report.run_figures import Figures, figures_of
from convnext_jax.report.run_groups import Group

COLUMNS = 4  # settings beside the figures; more do not fit
_HEAD = (
    "seeds",
    "epochs done",
    "evaluations",
    "last top-1 %",
    "best top-1 %",
    "best epoch",
    "last top-5 %",
    "last loss",
    "time",
)
_DIFFERENCES = ("seeds", "last top-1, points", "best top-1, points", "last top-5, points", "last loss")


def figure_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Returns the head and a row for each group and kind of weights."""
    fields = differing_settings([group.settings for group in groups])[:COLUMNS]
    rows = [["run", *short_fields(fields), "weights", *_HEAD]]
    for group in groups:
        settings = [setting_text(group.settings[name]) if name in group.settings else "" for name in fields]
        for figures in figures_of(group):
            rows.append([group.label, *settings, figures.weights, *_cells(figures)])
    return rows


def _cells(figures: Figures) -> list[str]:
    runs = figures.group.runs
    done = [run.lines[-1]["epoch"] for run in runs]
    epochs = _range([int(10 * epoch) / 10 for epoch in done])
    total = runs[0].experiment.run.epochs
    if not all(run.finished for run in runs):
        epochs += f" of {total}"
    return [
        str(len(runs)),
        epochs,
        _range([len(lines) for lines in figures.seeds]) or "0",
        mean_text(figures.last("top1"), 100, 2),
        mean_text(figures.best_top1(), 100, 2),
        _range([line["epoch"] for line in figures.best()]),
        mean_text(figures.last("top5"), 100, 2),
        mean_text(figures.last("loss"), 1, 4),
        str(datetime.timedelta(seconds=round(statistics.fmean(run.lines[-1]["seconds"] for run in runs)))),
    ]


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def mean_text(values: Sequence[float], factor: float, digits: int) -> str:
    """Returns the mean, with the sample standard deviation of several seeds; nothing of none."""
    scaled = [factor * value for value in values]
    if len(scaled) < 2:
        return "".join(f"{value:.{digits}f}" for value in scaled)
    found = over_seeds({"": value} for value in scaled)
    return f"{found['mean']['']:.{digits}f} ± {found['std']['']:.{digits}f}"


def difference_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Returns the head and a row for each group but the first and each kind of weights that both have kept."""
    first = {figures.weights: figures for figures in figures_of(groups[0])}
    rows = [[f"difference to {groups[0].label}", "weights", *_DIFFERENCES]]
    for group in groups[1:]:
        for figures in figures_of(group):
            base = first.get(figures.weights)
            if base is None or not base.seeds or not figures.seeds:
                continue
            cells = [
                _difference(base.last("top1"), figures.last("top1"), 100, 2),
                _difference(base.best_top1(), figures.best_top1(), 100, 2),
                _difference(base.last("top5"), figures.last("top5"), 100, 2),
                _difference(base.last("loss"), figures.last("loss"), 1, 4),
            ]
            rows.append([group.label, figures.weights, f"{len(figures.seeds)} to {len(base.seeds)}", *cells])
    return rows


def _difference(first: Sequence[float], second: Sequence[float], factor: float, digits: int) -> str:
    difference, interval = difference_of_means(first, second)
    text = f"{factor * difference:+.{digits}f}"
    if interval is None:
        return text
    low, high = (f"{factor * end:+.{digits}f}" for end in interval)
    return f"{text} [{low}, {high}]"


def how_to_read(groups: Sequence[Group]) -> list[str]:
    """Returns what a reader must know of the table of figures, in sentences."""
    split = groups[0].examples.split
    notes = [
        f"All figures are of the {split} split, {groups[0].examples}, as logged while training. Accuracies are in %.",
        "Last is the last evaluation. Best is the one with the highest top-1 accuracy of all evaluations, chosen on the"
        f" same {split} examples that it is reported on. So it is a little too high, the more so the more evaluations.",
    ]
    if any(len(group.runs) > 1 for group in groups):
        notes.append("Of several seeds: mean ± sample standard deviation.")
    if any(figures.weights == "EMA" for group in groups for figures in figures_of(group)):
        notes.append("EMA is the exponential moving average of the weights.")
    fields = differing_settings([group.settings for group in groups])
    if len(fields) > COLUMNS:
        notes.append(f"The configurations also differ in {', '.join(fields[COLUMNS:])}.")
    devices = {device for group in groups for run in group.runs if (device := _device(run.workdir))}
    if len(devices) > 1:
        notes.append(f"The times are of different devices: {'; '.join(sorted(devices))}.")
    return notes


def how_differences_are_made(groups: Sequence[Group]) -> list[str]:
    """Returns what a reader must know of the table of differences, in sentences."""
    counts = [len(group.runs) for group in groups]
    notes = []
    if counts[0] > 1 and max(counts[1:]) > 1:
        notes.append(
            "In brackets: the 95% interval of the difference of the means by Welch's t-test over the seeds. There is"
            " none if neither group varies."
        )
    if min(counts) == 1:
        notes.append(
            "With one seed there is no interval: a difference may be the seed's alone. `python evaluate.py --workdir A"
            " B` compares two runs on the same examples; more seeds (`--config.run.seeds=3`) compare the recipes."
        )
    if not all(run.finished for group in groups for run in group.runs):
        notes.append("Differences to a run that is unfinished say little: it has not come as far.")
    return notes


def _device(workdir: Path) -> str | None:
    """Returns what the last start of a run ran on, in words; None if that cannot be read."""
    try:
        found = json.loads((workdir / "environment.json").read_text(encoding="utf-8"))
        kind = found["processor"] if found["backend"] == "cpu" else found["device_kind"]
        return f"{found['device_count']} x {kind}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
