"""Curves from ``metrics.jsonl``: loss, accuracy and learning rate of a run; one figure of several runs."""

import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot: it needs no screen and leaves the process's backend alone

from convnext_jax.storage.files import write_bytes
from convnext_jax.workdir.metrics_log import Line

DPI = 110


def plot_curves(lines: Sequence[Line], path: Path, title: str, split: str) -> None:
    """Draws the curves of a run into a PNG file.

    Args:
      lines: the lines of ``metrics.jsonl``.
      path: the file to write.
      title: what is written above.
      split: the split that was evaluated, ``test`` or ``validation``.
    """
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    losses, accuracies, rates = figure.subplots(1, 3)
    evaluated = {f"{split}/loss": split, f"{split}_ema/loss": f"{split} EMA"}
    _plot(losses, lines, {"train/loss": "train (augmented)"} | evaluated)
    losses.set_ylabel("loss (nats)")
    _plot(
        accuracies,
        lines,
        {
            "train/pixel_accuracy": "train pixel accuracy (augmented)",
            f"{split}/mean_iou": f"{split} mean IoU",
            f"{split}/dice": f"{split} Dice",
            f"{split}_ema/mean_iou": f"{split} EMA mean IoU",
            "train/top1": "train top-1 (augmented)",
            f"{split}/top1": f"{split} top-1",
            f"{split}/top5": f"{split} top-5",
            f"{split}_ema/top1": f"{split} EMA top-1",
        },
    )
    accuracies.set_ylabel("mean IoU, accuracy" if any(f"{split}/mean_iou" in line for line in lines) else "accuracy")
    accuracies.set_ylim(0, 1)
    _plot(rates, lines, {"train/lr": "learning rate"})
    rates.set_ylabel("learning rate")
    for axes in (losses, accuracies, rates):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        # Below the axes, where it covers no line.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def plot_comparison(runs: Sequence[tuple[str, str, Sequence[Line]]], path: Path, title: str) -> None:
    """Draws one figure of several runs into a PNG file.

    Args:
      runs: of each its label, the figure's name and the lines of its ``metrics.jsonl``, of all of its seeds.
      path: the file to write.
      title: what is written above.
    """
    # The legend is below, a line for each run, where no label is too long.
    figure = Figure(figsize=(11, 5.5 + 0.22 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for label, name, lines in runs:
        _plot(axes, lines, {name: label})
    axes.set_xlabel("epoch")
    axes.set_ylabel(" or ".join(dict.fromkeys(name for _, name, _ in runs)))
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside lower left")
    figure.suptitle(title)
    _save(figure, path)


def _plot(axes: Axes, lines: Sequence[Line], names: Mapping[str, str]) -> None:
    for name, label in names.items():
        epochs, values = by_epoch(lines, name)
        if epochs:
            axes.plot(epochs, values, label=label, marker="." if len(epochs) < 30 else None)


def by_epoch(lines: Sequence[Line], name: str) -> tuple[list[int], list[float]]:
    """Returns epochs and the mean of a figure over the lines of each. A curve is readable however often it was logged.

    Args:
      lines: those of ``metrics.jsonl``.
      name: of the figure, such as ``train/loss``.
    """
    values = defaultdict(list)
    for line in lines:
        if name in line:
            values[math.ceil(line["epoch"])].append(line[name])
    return list(values), [sum(of_epoch) / len(of_epoch) for of_epoch in values.values()]


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, dpi=DPI, format=path.suffix.removeprefix(".") or "png")
    write_bytes(path, picture.getvalue())
