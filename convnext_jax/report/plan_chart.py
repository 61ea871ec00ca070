"""The plan of a run as a picture: what takes the memory of a chip, and what the cycles of a step."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from convnext_jax.report.page import light_series


def plan_chart(memory: Mapping[str, int], cycles: Mapping[str, int] | None, title: str) -> Figure:
    """Returns a stacked bar of the memory, and one of the cycles if they are known.

    Args:
      memory: bytes by kind.
      cycles: modeled cycles by kind, or None.
      title: of the picture.
    """
    bars = {"memory a chip, MiB": {kind: used / 2**20 for kind, used in memory.items()}}
    if cycles is not None:
        bars["modeled cycles of a step, M"] = {kind: count / 1e6 for kind, count in cycles.items()}
    figure = Figure(figsize=(10, 1 + 2 * len(bars)), layout="constrained")
    figure.suptitle(title)
    colors = light_series()
    for row, (label, parts) in enumerate(bars.items()):
        axes = figure.add_subplot(len(bars), 1, row + 1)
        left = 0.0
        ranked = sorted(((kind, size) for kind, size in parts.items() if size), key=lambda part: -part[1])
        for number, (kind, size) in enumerate(ranked):
            axes.barh(
                0,
                size,
                left=left,
                color=colors[number % len(colors)],
                label=f"{kind} {size:,.1f}",
                hatch="//" * (number >= len(colors)),
            )
            left += size
        axes.set_yticks([])
        axes.set_xlabel(label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.35), ncols=5, fontsize=8, frameon=False)
    return figure
