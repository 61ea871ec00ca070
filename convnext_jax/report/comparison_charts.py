"""The curves of several groups of runs over each other: by epoch and by wall time, seeds as bands."""

import dataclasses
import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from convnext_jax.report.page import SERIES
from convnext_jax.report.run_figures import METRICS, Curve, Figures, curve, figures_of
from convnext_jax.report.run_groups import Group

MARKERS = ("", "o", "s", "^", "D", "v", "P", "X")  # one for each round of the colors
_FEW = 30  # points that are drawn as points, too
_MOST = 300  # points of a learning rate
OVER = {"epoch": "epoch", "seconds": "wall time"}


@dataclasses.dataclass(frozen=True)
class Panel:
    """What a chart shows.

    Attributes:
      title: in words, such as ``top-1 accuracy``.
      metric: a key of `METRICS`, or ``lr``.
      weights: whose figures: ``raw``, ``EMA`` or both.
    """

    title: str
    metric: str
    weights: Sequence[str]

    @property
    def y(self) -> str:
        """The label of the vertical axis."""
        return self.title + {"loss": " (nats)", "lr": ""}.get(self.metric, " (%)")

    def figures(self, group: Group) -> list[Figures]:
        """Returns the figures of a group that the chart shows, none for the learning rate."""
        if self.metric not in METRICS:
            return []
        return [each for each in figures_of(group) if each.weights in self.weights and each.seeds]


def style_of(index: int) -> tuple[int, str]:
    """Returns the number of the color of a group, and its marker. Beyond the colors they are told apart by markers.

    >>> style_of(0), style_of(7)
    ((0, ''), (1, 'o'))
    """
    return index % len(SERIES), MARKERS[index // len(SERIES) % len(MARKERS)]


def panels(groups: Sequence[Group]) -> list[Panel]:
    """Returns what is drawn. Of many groups the moving averages have charts of their own."""
    kinds = dict.fromkeys(figures.weights for group in groups for figures in figures_of(group))
    found = []
    for metric, title in METRICS.items():
        if len(groups) > len(SERIES) and len(kinds) > 1:
            found += [Panel(title if kind == "raw" else f"{title}, {kind}", metric, (kind,)) for kind in kinds]
        else:
            found.append(Panel(title, metric, tuple(kinds)))
    shown = [panel for panel in found if any(panel.figures(group) for group in groups)]
    return [*shown, Panel("learning rate", "lr", ())]


def draw(axes: Axes, panel: Panel, groups: Sequence[Group], over: str, colors: Sequence[str] = SERIES) -> str:
    """Draws a chart and returns the label of its horizontal axis.

    The lines of the group with index i have the SVG name ``group-i``. The vertical axis shows the lines from their
    first quarter on; before, they rise so steeply that their differences at the end could not be seen.

    Args:
      axes: to draw in.
      panel: what to draw.
      groups: all groups.
      over: a key of `OVER`.
      colors: in the place of `SERIES`.
    """
    scale, unit = _wall_time(groups) if over == "seconds" else (1.0, "")
    late: list[float] = []
    for index, group in enumerate(groups):
        before = set(axes.get_children())
        number, marker = style_of(index)
        pen = _Pen(axes, colors[number], marker, 1.6 if len(groups) <= len(SERIES) else 1.1, scale, late)
        if panel.metric == "lr":
            # Equal schedules cover each other, so the first are drawn wider.
            wider = dataclasses.replace(pen, width=1.2 + 1.8 * (len(groups) - 1 - index) / len(groups))
            wider.lines(_schedule(group, over))
        for figures in panel.figures(group):
            pen.figures(figures, panel.metric, over)
        for artist in set(axes.get_children()) - before:
            artist.set_gid(f"group-{index}")
    if late and panel.metric != "lr":
        margin = 0.05 * (max(late) - min(late)) or 0.01
        axes.set_ylim(min(late) - margin, max(late) + margin)
    return OVER[over] + unit


@dataclasses.dataclass(frozen=True)
class _Pen:
    """Draws the lines of a group and notes the values that must be seen."""

    axes: Axes
    color: str
    marker: str
    width: float
    scale: float
    late: list[float]

    def figures(self, figures: Figures, metric: str, over: str) -> None:
        """Draws a metric: the mean with its band, what single seeds have beyond it, and the best evaluations."""
        name, factor = figures.name(metric), 1.0 if metric == "loss" else 100.0
        found = curve(figures.seeds, name, over)
        if found.low:
            low, high = ([factor * value for value in values] for values in (found.low, found.high))
            xs = [self.scale * x for x, _ in found.mean]
            self._note(low)
            self._note(high)
            self.axes.fill_between(xs, low, high, color=self.color, alpha=0.18, linewidth=0)
        self.lines(found, factor, "--" if figures.weights == "EMA" else "-")
        if metric == "top1":
            on_the_mean = {step: x for step, (x, _) in zip(found.steps, found.mean, strict=True)}
            xs = [self.scale * on_the_mean.get(int(line["step"]), line[over]) for line in figures.best()]
            ys = [factor * line[name] for line in figures.best()]
            self.late.extend(ys)
            self.axes.plot(xs, ys, linestyle="", marker="*", markersize=9, color=self.color)

    def lines(self, found: Curve, factor: float = 1.0, dashes: str = "-") -> None:
        """Draws the mean, and a thin line for each seed beyond it."""
        self.line(found.mean, factor, dashes, self.width)
        for points in found.ahead:
            self.line(points, factor, dashes, self.width / 2)

    def line(self, points: Sequence[tuple[float, float]], factor: float, dashes: str, width: float) -> None:
        """Draws a line, with markers at some or all of its points."""
        few = len(points) < _FEW
        ys = [factor * y for _, y in points]
        self._note(ys)
        self.axes.plot(
            [self.scale * x for x, _ in points],
            ys,
            color=self.color,
            linestyle=dashes,
            linewidth=width,
            marker=self.marker or ("." if few else ""),
            markersize=4,
            markevery=1 if few else len(points) // 10,
        )

    def _note(self, values: Sequence[float]) -> None:
        late = values[len(values) // 4 :] if len(values) >= 8 else values
        self.late.extend(value for value in late if math.isfinite(value))


def _schedule(group: Group, over: str) -> Curve:
    """Returns the learning rate, thinned out: it is logged at every call to the device."""
    seeds = [[line for line in run.lines if "train/lr" in line] for run in group.runs]
    every = max(1, max(map(len, seeds)) // _MOST)
    return curve([[*lines[::every], *lines[-1:]] for lines in seeds], "train/lr", over)


def _wall_time(groups: Sequence[Group]) -> tuple[float, str]:
    """Returns the factor of seconds, and the unit as the end of a label, in which the longest run is readable."""
    longest = max(run.lines[-1]["seconds"] for group in groups for run in group.runs)
    for seconds, unit in ((36_000, "hours"), (600, "minutes")):
        if longest >= seconds / 2:
            return {"hours": 1 / 3600, "minutes": 1 / 60}[unit], f" ({unit})"
    return 1.0, " (seconds)"
