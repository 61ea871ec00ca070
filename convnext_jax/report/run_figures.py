"""What the seeds of a group came to: last, best and by step, the raw weights and their moving average apart."""

import dataclasses
import math
from collections.abc import Sequence

from convnext_jax.report.run_groups import Group
from convnext_jax.workdir.metrics_log import Line, figure_name

METRICS = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "loss": "loss"}
_PREFIXES = {"raw": "", "EMA": "ema/"}
Points = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Figures:
    """The evaluations of a group with one kind of weights.

    Attributes:
      group: the group.
      weights: ``raw`` or ``EMA``.
      seeds: the lines of each seed that hold an evaluation; seeds without any are left out.
    """

    group: Group
    weights: str
    seeds: Sequence[Sequence[Line]]

    def name(self, metric: str) -> str:
        """Returns the name that a metric has in the log."""
        return figure_name(self.group.examples.split, _PREFIXES[self.weights] + metric)

    def last(self, metric: str) -> list[float]:
        """Returns a figure of the last evaluation of each seed."""
        return [lines[-1].get(self.name(metric), math.nan) for lines in self.seeds]

    def best(self) -> list[Line]:
        """Returns the evaluation of each seed with the highest top-1 accuracy, the first of equals."""
        return [max(lines, key=lambda line: line[self.name("top1")]) for lines in self.seeds]

    def best_top1(self) -> list[float]:
        """Returns the highest top-1 accuracy of each seed."""
        return [line[self.name("top1")] for line in self.best()]


def figures_of(group: Group) -> list[Figures]:
    """Returns the figures of the raw weights, and those of their moving average if one is kept."""
    found = []
    for weights in _PREFIXES:
        name = Figures(group, weights, ()).name("top1")
        seeds = [[line for line in run.evaluations if math.isfinite(line.get(name, math.nan))] for run in group.runs]
        found.append(Figures(group, weights, [lines for lines in seeds if lines]))
    return [each for each in found if each.weights == "raw" or each.seeds]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure over the course of training.

    Attributes:
      mean: points (x, mean over the seeds) where all seeds have a value. Of the wall time x is a mean, too.
      low: the lowest value of a seed at each point; empty if there is only one seed.
      high: the highest.
      steps: the step of each of these points.
      ahead: the points of each seed that has come further than others, from the last of the mean on.
    """

    mean: Points
    low: list[float]
    high: list[float]
    steps: list[int]
    ahead: Sequence[Points]


def curve(seeds: Sequence[Sequence[Line]], name: str, x: str) -> Curve:
    """Returns a figure over the course of training.

    Args:
      seeds: the lines of each seed.
      name: of the figure.
      x: what it is drawn over: ``epoch`` or ``seconds``.
    """
    values = [{int(line["step"]): (line[x], line[name]) for line in lines if name in line} for lines in seeds]
    values = [each for each in values if each]
    common = sorted(set.intersection(*map(set, values))) if values else []
    columns = [[each[step] for each in values] for step in common]
    mean = [(sum(x for x, _ in each) / len(each), sum(y for _, y in each) / len(each)) for each in columns]
    several = len(values) > 1
    reached = common[-1] if common else -math.inf
    ahead = [[point for step, point in each.items() if step >= reached] for each in values if max(each) > reached]
    return Curve(
        mean,
        [min(y for _, y in each) for each in columns] if several else [],
        [max(y for _, y in each) for each in columns] if several else [],
        common,
        ahead,
    )
