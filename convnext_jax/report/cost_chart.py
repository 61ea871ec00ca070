"""What networks cost as a picture: multiply-adds against time."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from convnext_jax.report.page import light_series


def cost_chart(points: Mapping[str, tuple[float, float]], title: str) -> Figure:
    """Returns a point for each network, on logarithmic axes.

    Args:
      points: by name, the milliseconds of an image and its multiply-adds in 10^6.
      title: of the picture.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.add_subplot()
    colors = light_series()
    family = {name: name.partition("_")[0].rstrip("0123456789") for name in points}
    families = list(dict.fromkeys(family.values()))
    for name, (milliseconds, macs) in points.items():
        color = colors[families.index(family[name]) % len(colors)]
        axes.plot(milliseconds, macs, "o", color=color, markersize=5)
        axes.annotate(name, (milliseconds, macs), xytext=(4, 3), textcoords="offset points", fontsize=7, color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("milliseconds an image")
    axes.set_ylabel("multiply-adds of an image (10⁶)")
    axes.grid(alpha=0.3)
    axes.set_title(title)
    return figure
