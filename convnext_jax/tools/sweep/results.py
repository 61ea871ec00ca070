"""How the points of a sweep ended, ranked, as a table and as files."""

import collections
import dataclasses
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, first_line
from convnext_jax.report.tables import markdown_table
from convnext_jax.storage.files import parse_json, write_json, write_text
from convnext_jax.tasks.make import task_without_data
from convnext_jax.tools.sweep.points import Point, in_words
from convnext_jax.workdir.best_metric import BestMetric, best_metric
from convnext_jax.workdir.claim import seed_runs
from convnext_jax.workdir.metrics_log import figure_name, read_metrics

# Of a classification, and of a segmentation. The last ones only if a moving average is kept.
FIGURES = ("validation/top1", "validation/top5", "validation/loss", "validation_ema/top1")
PIXEL_FIGURES = ("validation/mean_iou", "validation/dice", "validation/loss", "validation_ema/mean_iou")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a point ended.

    Attributes:
      point: the point.
      figures: its final figures on the validation split, means over its seeds; None if it failed.
      std: their sample standard deviations, if it has several seeds.
      seconds: how long its training took.
      reason: why it failed.
    """

    point: Point
    figures: dict[str, float] | None = None
    std: dict[str, float] | None = None
    seconds: float | None = None
    reason: str | None = None

    @classmethod
    def of_finished(cls, point: Point) -> "Outcome":
        """Returns how a point ended that came to its end, from its summary."""
        try:
            summary = parse_json(point.summary.read_bytes())
            # The summary of several seeds has no final figures, it has means.
            figures, std = summary.get("final") or summary["mean"], summary.get("std")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{point.summary} is damaged ({first_line(error)}); delete it, and run again") from error
        if not any(name.startswith("validation") for name in figures):
            return cls(point, reason="its data have no test split, so the share of train that was held out is that")
        return cls(
            point,
            figures={name: value for name, value in figures.items() if name.startswith("validation")},
            std=std and {name: value for name, value in std.items() if name.startswith("validation")},
            seconds=summary["seconds"],
        )

    @classmethod
    def of_failed(cls, point: Point, status: int) -> "Outcome":
        """Returns why a point ended with a status that is not 0, from its log; a negative status is a signal's."""
        if status < 0:
            return cls(point, reason=f"killed by {signal.Signals(-status).name}")
        said = point.log.read_text(errors="replace").strip().splitlines() if point.log.exists() else []
        return cls(point, reason=f"exit status {status}: {said[-1].removeprefix('error: ') if said else 'no word'}")

    def texts(self, names: Sequence[str]) -> list[str]:
        """Returns the figures of some names as the cells of a row."""
        if self.figures is None:
            return ["failed", *[""] * (len(names) - 1)]
        spread = {name: f" ± {value:.4f}" for name, value in (self.std or {}).items()}
        cells = {name: f"{value:.4f}{spread.get(name, '')}" for name, value in self.figures.items()}
        return [cells.get(name, "") for name in names]

    @property
    def _metric(self) -> BestMetric:
        experiment = self.point.experiment
        return best_metric(experiment, task_without_data(experiment))

    @property
    def judged_by(self) -> str:
        """The name of the figure that it is ranked by: the one that its best checkpoint is chosen by."""
        return figure_name("validation", self._metric.name)

    def score(self) -> tuple[float, float]:
        """Returns what it is ranked by, the higher the better: its metric, and the loss for equals."""
        if self.figures is None:
            return -math.inf, -math.inf
        return self._metric.score(self.figures), -self.figures["validation/loss"]


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Returns the best first, of equals the one with the lower loss, and those that failed last."""
    return sorted(outcomes, key=Outcome.score, reverse=True)


def figure_names(points: Sequence[Point]) -> tuple[str, ...]:
    """Returns the figures that a table of points shows."""
    tasks = {point.experiment.task.name for point in points}
    names = (*PIXEL_FIGURES * (tasks != {"classification"}), *FIGURES * (tasks != {"segmentation"}))
    return tuple(dict.fromkeys(names))


def results_table(outcomes: Sequence[Outcome]) -> str:
    """Returns the points as rows of a Markdown table, in the given order, with what each sets and its figures."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.point.values))
    figures = figure_names([outcome.point for outcome in outcomes])
    rows = [[*names, *figures, "seconds", "folder"]]
    for outcome in outcomes:
        values = [str(outcome.point.values.get(name, "")) for name in names]
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        rows.append([*values, *outcome.texts(figures), seconds, outcome.point.workdir.name])
    return markdown_table(rows)


def write_results(outcomes: Sequence[Outcome], title: str, workdir: Path) -> None:
    """Writes ``sweep.md``, ``sweep.json`` and ``sweep.png``, the curves, into the sweep's folder."""
    metrics = " or ".join(dict.fromkeys(f"`{outcome.judged_by}`" for outcome in outcomes))
    ranking = f"Ranked by the final {metrics}."
    parts = [f"# {title}", ranking, results_table(outcomes)]
    parts += [f"`{outcome.point.workdir.name}`: {outcome.reason}" for outcome in outcomes if outcome.reason]
    write_text(workdir / "sweep.md", "\n\n".join(parts) + "\n")
    write_json(workdir / "sweep.json", {"sweep": title, "points": [_to_dict(outcome) for outcome in outcomes]})
    _plot_curves([outcome for outcome in outcomes if outcome.figures], title, workdir)


def _plot_curves(outcomes: Sequence[Outcome], title: str, workdir: Path) -> None:
    from convnext_jax.report.curves import plot_comparison  # a second to import, and only needed here

    runs = []
    for outcome, label in zip(outcomes, short_labels([outcome.point for outcome in outcomes]), strict=True):
        seeds = seed_runs(outcome.point.workdir, outcome.point.experiment)
        lines = [line for directory, _ in seeds for line in read_metrics(directory / "metrics.jsonl")]
        runs.append((label, outcome.judged_by, lines))
    if runs:
        plot_comparison(runs, workdir / "sweep.png", title)


def short_labels(points: Sequence[Point]) -> list[str]:
    """Returns the values of each point in words; of many fields only those that differ from most points."""
    names = list(dict.fromkeys(name for point in points for name in point.values))
    if len(names) <= 2:
        return [point.label for point in points]
    changes: list[dict[str, Any]] = [{} for _ in points]
    for name in names:
        values = [repr(point.values.get(name)) for point in points]
        commonest = collections.Counter(values).most_common(1)[0][0]
        for change, point, value in zip(changes, points, values, strict=True):
            if value != commonest and name in point.values:
                change[name] = point.values[name]
    return [in_words(change) or "what most have in common" for change in changes]


def _to_dict(outcome: Outcome) -> dict[str, Any]:
    point = outcome.point
    fields = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)[1:]}
    return {"values": dict(point.values), "arguments": point.arguments, "folder": point.workdir.name, **fields}
