"""The charts of an evaluation's page: learning curves, reliability, corruptions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from convnext_jax.evaluate.calibration import equal_width_bins
from convnext_jax.report.curves import by_epoch
from convnext_jax.report.page import FAINT, INK, SERIES, chart, new_figure, style_axes
from convnext_jax.workdir.metrics_log import Line

LOSS_AND_TOP1 = {"loss": "loss (nats)", "top1": "top-1"}


def reliability_chart(logits: np.ndarray, labels: np.ndarray, temperature: float | None) -> str:
    """Returns a reliability diagram, and beside it that of the logits divided by a temperature, if there is one.

    Args:
      logits: float [N,K].
      labels: int [N].
      temperature: of the scaling; None if there is none.
    """
    scalings = {"as trained": 1.0} | ({} if temperature is None else {f"at temperature {temperature:.3f}": temperature})
    figure = new_figure(9.2, 4.4)
    both = figure.subplots(1, 2)
    if len(scalings) == 1:
        both[1].set_axis_off()  # its place stays empty, so that a diagram has the same size in all pages
    described = []
    for axes, (name, divisor) in zip(both, scalings.items(), strict=False):
        probabilities = softmax(np.asarray(logits, np.float64) / divisor, axis=-1)
        bins = equal_width_bins(probabilities.max(-1), logits.argmax(-1) == labels)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=2)
        axes.bar(bins.confidence, bins.accuracy, width=0.05, color=SERIES[0], alpha=0.75, label="accuracy")
        share = bins.count / bins.count.sum()
        axes.plot(bins.confidence, share, color=SERIES[3], marker=".", label="share of the examples")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(f"{name}: ECE {bins.error:.2%}", color=INK, fontsize=11)
        style_axes(axes, x="confidence", y="accuracy")
        described.append(f"{name} the expected calibration error is {bins.error:.2%}")
    return chart(figure, alt="Reliability diagram: " + "; ".join(described))


def curves_chart(lines: Sequence[Line], split: str, figures: Mapping[str, str] = LOSS_AND_TOP1) -> str:
    """Returns the learning curves of a run.

    Args:
      lines: those of ``metrics.jsonl``.
      split: that was evaluated, ``test`` or ``validation``.
      figures: what is drawn, two in a row, and how the axis of each is called.
    """
    rows = len(figures) // 2
    figure = new_figure(10, 3.8 * rows)
    for axes, (kind, label) in zip(figure.subplots(rows, 2).ravel(), figures.items(), strict=True):
        names: Mapping[str, str] = {
            f"train/{kind}": "train (augmented)",
            f"{split}/{kind}": split,
            f"{split}_ema/{kind}": f"{split}, EMA",
        }
        for color, (name, shown) in zip(SERIES, names.items(), strict=False):
            epochs, values = by_epoch(lines, name)
            if epochs:
                axes.plot(epochs, values, color=color, label=shown, marker="." if len(epochs) < 30 else None)
        style_axes(axes, x="epoch", y=label)
    drawn = " and ".join(figures.values())
    return chart(figure, alt=f"By epoch, on the training images and on {split}: {drawn}")


def corruption_chart(corruptions: Mapping[str, Any], clean: float) -> str:
    """Returns the accuracy under each corruption, the mean over its severities and each of them, the lowest first.

    Args:
      corruptions: what `convnext_jax.evaluate.robustness.summarize_corruptions` returns.
      clean: the accuracy on the images as they are.
    """
    means = dict(sorted(corruptions["top1"].items(), key=lambda item: -item[1]))
    figure = new_figure(10, 1.4 + 0.3 * len(means))
    axes = figure.subplots()
    axes.barh(
        list(means), list(means.values()), height=0.62, color=SERIES[0], alpha=0.75, label="mean of the severities"
    )
    for row, name in enumerate(means):
        values = list(corruptions["by_severity"][name].values())
        axes.plot(values, [row] * len(values), ".", color=SERIES[3], label=None if row else "each severity")
    axes.axvline(clean, color=SERIES[2], linewidth=2, label="without corruption")
    axes.set_xlim(0, 1)
    style_axes(axes, x="top-1", y="")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -1.5 / len(means)), ncols=3, frameon=False, labelcolor=INK)
    told = ", ".join(f"{name.replace('_', ' ')} {value:.1%}" for name, value in means.items())
    return chart(figure, alt=f"Top-1 under corruption, {clean:.1%} without: {told}")
