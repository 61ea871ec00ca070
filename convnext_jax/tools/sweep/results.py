"""How the points of a sweep ended, ranked, as a table and as files."""

import collections
import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.workdir.metrics_log import read_metrics
from convnext_jax.report.tables import markdown_table
from convnext_jax.tools.sweep.points import Point, in_words
from convnext_jax.workdir.records import seed_runs, write_json

FIGURES = ("validation/top1", "validation/top5", "validation/loss", "validation_ema/top1")  # the last where one is kept


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a point ended.

    Attributes:
      point: the point.
      figures: its final ``FIGURES``, means over its seeds; None where it failed.
      std: their sample standard deviations, where it has several seeds.
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
        """Reads the summary of a point that came to its end."""
        summary = json.loads(point.summary.read_text())
        # The summary of several seeds has no final figures, it has means.
        figures, std = summary.get("final") or summary["mean"], summary.get("std")
        return cls(
            point,
            figures={name: figures[name] for name in FIGURES if name in figures},
            std=std and {name: std[name] for name in FIGURES if name in std},
            seconds=summary["seconds"],
        )

    @classmethod
    def of_failed(cls, point: Point, status: int) -> "Outcome":
        """Finds in a point's log why it ended with a status that is not 0; a negative one is a signal's."""
        if status < 0:
            return cls(point, reason=f"killed by {signal.Signals(-status).name}")
        said = point.log.read_text(errors="replace").strip().splitlines() if point.log.exists() else []
        return cls(point, reason=f"exit status {status}: {said[-1].removeprefix('error: ') if said else 'no word'}")

    def texts(self) -> list[str]:
        """The figures as the cells of a row."""
        if self.figures is None:
            return ["failed", *[""] * (len(FIGURES) - 1)]
        spread = {name: f" ± {value:.4f}" for name, value in (self.std or {}).items()}
        cells = {name: f"{value:.4f}{spread.get(name, '')}" for name, value in self.figures.items()}
        return [cells.get(name, "") for name in FIGURES]

    @property
    def judged_by(self) -> str:
        """The name of the top-1 that it is ranked by: that of the moving average where one is kept."""
        average = "validation_ema/top1"
        return average if average in (self.figures or {}) else "validation/top1"

    def score(self) -> tuple[float, float]:
        """What it is ranked by, the lower the better: the top-1, and the loss of equals."""
        if self.figures is None:
            return 1.0, 0.0
        return -self.figures[self.judged_by], self.figures["validation/loss"]


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The highest final top-1 first, the lower loss of equals, and the failed last."""
    return sorted(outcomes, key=Outcome.score)


def results_table(outcomes: Sequence[Outcome]) -> str:
    """The points as rows of a Markdown table, in the order given, with what each sets and its figures."""
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.point.values))
    rows = [[*names, *FIGURES, "seconds", "folder"]]
    for outcome in outcomes:
        values = [str(outcome.point.values.get(name, "")) for name in names]
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        rows.append([*values, *outcome.texts(), seconds, outcome.point.workdir.name])
    return markdown_table(rows)


def write_results(outcomes: Sequence[Outcome], title: str, workdir: Path) -> None:
    """Writes ``sweep.md``, ``sweep.json`` and ``sweep.png``, the curves, into the sweep's folder."""
    ranking = "Ranked by the final top-1 on the validation split, that of the moving average where one is kept."
    parts = [f"# {title}", ranking, results_table(outcomes)]
    parts += [f"`{outcome.point.workdir.name}`: {outcome.reason}" for outcome in outcomes if outcome.reason]
    (workdir / "sweep.md").write_text("\n\n".join(parts) + "\n")
    write_json(workdir / "sweep.json", {"sweep": title, "points": [_to_dict(outcome) for outcome in outcomes]})
    _plot_curves([outcome for outcome in outcomes if outcome.figures], title, workdir)


def _plot_curves(outcomes: Sequence[Outcome], title: str, workdir: Path) -> None:
    from convnext_jax.report.curves import plot_comparison  # a second to import, and needed here alone

    runs = []
    for outcome, label in zip(outcomes, short_labels([outcome.point for outcome in outcomes]), strict=True):
        seeds = seed_runs(outcome.point.workdir, outcome.point.experiment)
        lines = [line for directory, _ in seeds for line in read_metrics(directory / "metrics.jsonl")]
        runs.append((label, outcome.judged_by, lines))
    if runs:
        plot_comparison(runs, workdir / "sweep.png", title)


def short_labels(points: Sequence[Point]) -> list[str]:
    """The values of each point; of many fields only those that are not the commonest of the sweep's."""
    names = points[0].values if points else ()
    if len(names) <= 2:
        return [point.label for point in points]
    changes: list[dict[str, Any]] = [{} for _ in points]
    for name in names:
        values = [repr(point.values[name]) for point in points]
        commonest = collections.Counter(values).most_common(1)[0][0]
        for change, point, value in zip(changes, points, values, strict=True):
            if value != commonest:
                change[name] = point.values[name]
    return [in_words(change) or "what most have in common" for change in changes]


def _to_dict(outcome: Outcome) -> dict[str, Any]:
    point = outcome.point
    fields = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)[1:]}
    return {"values": dict(point.values), "arguments": point.arguments, "folder": point.workdir.name, **fields}
