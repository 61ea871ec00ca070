"""Plans of one run on more and more chips as a picture: images per second, and what does not shrink with the chips."""

import dataclasses
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from convnext_jax.report.page import light_series


@dataclasses.dataclass(frozen=True)
class ScalingPoint:
    """A plan in the chart.

    Attributes:
      chips: their number.
      images_per_second: of all chips.
      collectives: the share of a step that they take, from 0 to 1.
      optimizer: likewise.
    """

    chips: int
    images_per_second: float
    collectives: float
    optimizer: float


def scaling_chart(lines: Mapping[str, Sequence[ScalingPoint]], network: str) -> Figure:
    """Returns two charts over the number of chips: images per second beside the ideal, and shares of a step.

    Args:
      lines: points from the fewest chips to the most, by label.
      network: its name, for the title.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    figure.suptitle(f"{network}: modeled, nothing was run")
    speed, shares = figure.subplots(1, 2)
    colors = light_series()
    for number, (label, plans) in enumerate(lines.items()):
        color, chips = colors[number % len(colors)], [plan.chips for plan in plans]
        speed.plot(chips, [plan.images_per_second for plan in plans], "o-", color=color, label=label)
        first = plans[0]
        ideal = [first.images_per_second * count / first.chips for count in chips]
        speed.plot(chips, ideal, ":", color=color, linewidth=1)
        shares.plot(chips, [100 * plan.collectives for plan in plans], "o-", color=color, label=f"{label}: collectives")
        shares.plot(chips, [100 * plan.optimizer for plan in plans], "s--", color=color, label=f"{label}: optimizer")
    ticks = sorted({plan.chips for plans in lines.values() for plan in plans})
    for axes in (speed, shares):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{count:,}" for count in ticks])
        axes.minorticks_off()
        axes.set_xlabel("chips")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    speed.set_yscale("log")
    speed.set_ylabel("images/s (dotted: ideal)")
    shares.set_ylabel("share of a step (%)")
    shares.set_ylim(bottom=0)
    return figure
