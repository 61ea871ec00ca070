"""How the points of a sweep ended, ranked, as a table and as files."""

import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.tables import markdown_table
from convnext_jax.tools.sweep_points import Point
from convnext_jax.workdir import write_json

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

    def score(self) -> tuple[float, float]:
        """What it is ranked by, the lower the better: the top-1, of the moving average where one is kept; the loss."""
        if self.figures is None:
            return 1.0, 0.0
        top1 = self.figures.get("validation_ema/top1", self.figures["validation/top1"])
        return -top1, self.figures["validation/loss"]


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
    """Writes ``sweep.md`` and ``sweep.json`` into the sweep's folder."""
    ranking = "Ranked by the final top-1 on the validation split, that of the moving average where one is kept."
    parts = [f"# {title}", ranking, results_table(outcomes)]
    parts += [f"`{outcome.point.workdir.name}`: {outcome.reason}" for outcome in outcomes if outcome.reason]
    (workdir / "sweep.md").write_text("\n\n".join(parts) + "\n")
    write_json(workdir / "sweep.json", {"sweep": title, "points": [_to_dict(outcome) for outcome in outcomes]})


def _to_dict(outcome: Outcome) -> dict[str, Any]:
    point = outcome.point
    fields = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)[1:]}
    return {"values": dict(point.values), "arguments": point.arguments, "folder": point.workdir.name, **fields}
