"""The road from ResNet to ConvNeXt as a picture, as figure 2 of Liu et al. 2022 draws it."""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure

from convnext_jax.report.page import light_series


@dataclasses.dataclass(frozen=True)
class Bar:
    """A step of the road.

    Attributes:
      what: the step in words.
      gmacs: multiply-adds of an image, in 10^9.
      top1: top-1 in percent, one value for each seed; empty if the step has not been measured.
    """

    what: str
    gmacs: float
    top1: Sequence[float]


def road_chart(bars: Sequence[Bar], title: str) -> Figure:
    """Returns a bar for each step from the top down, with its accuracy, and a line of the multiply-adds.

    Args:
      bars: of which one at least has been measured.
      title: of the picture.
    """
    color, line_color = light_series()[:2]
    figure = Figure(figsize=(9, 0.42 * len(bars) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    places = list(range(len(bars)))
    means = [sum(bar.top1) / len(bar.top1) if bar.top1 else 0.0 for bar in bars]
    measured = [mean for mean in means if mean]
    spread = max(measured) - min(measured)
    left = max(0.0, min(measured) - max(spread, 1.0))
    axes.barh(places, [max(0.0, mean - left) for mean in means], left=left, color=color, height=0.6)
    for place, bar, mean in zip(places, bars, means, strict=True):
        if not bar.top1:
            axes.text(left, place, " not measured", va="center", fontsize=9)
            continue
        axes.plot(list(bar.top1), [place] * len(bar.top1), ".", color="black", markersize=4)
        seeds = f" ({len(bar.top1)} seeds)" if len(bar.top1) > 1 else ""
        axes.text(max(*bar.top1, mean), place, f" {mean:.1f}{seeds}", va="center", fontsize=9)
    axes.set_xlim(left, max(measured) + 0.35 * max(max(measured) - left, 1.0))
    axes.set_yticks(places, [bar.what for bar in bars])
    axes.invert_yaxis()
    axes.set_xlabel("top-1 (%)")
    above = axes.twiny()
    above.plot([bar.gmacs for bar in bars], places, "*--", color=line_color, linewidth=1, markersize=8)
    above.set_xlim(0, 1.15 * max(bar.gmacs for bar in bars))
    above.set_xlabel("multiply-adds of an image (10⁹), stars")
    figure.suptitle(title)
    return figure
