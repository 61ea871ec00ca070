"""The charts of an evaluation's page: learning curves, reliability, corruptions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from convnext_jax.evaluate.calibration import equal_width_bins
from convnext_jax.report.curves import by_epoch
from convnext_jax.report.page import FAINT, INK, SERIES, chart, new_figure, style_axes
from convnext_jax.workdir.metrics_log import Line


def reliability_chart(logits: np.ndarray, labels: np.ndarray, temperature: float | None) -> str:
    """Returns a reliability diagram, and beside it that of the logits divided by a temperature, if there is one.

    Args:
      logits: float [N,K].
      labels: int [N].
      temperature: of the scaling; None if there is none.
    """
    scalings = {"as trained": 1.0} | ({} if temperature is None else {f"at temperature {temperature:.3f}": temperature})
    figure = new_figure(4.6 * len(scalings), 4.4)
    described = []
    for axes, (name, divisor) in zip(
        figure.subplots(1, len(scalings), squeeze=False)[0], scalings.items(), strict=True
    ):
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


def curves_chart(lines: Sequence[Line], split: str) -> str:
    """Returns the learning curves of a run.

    Args:
      lines: those of ``metrics.jsonl``.
      split: that was evaluated, ``test`` or ``validation``.
    """
    figure = new_figure(10, 3.8)
    losses, accuracies = figure.subplots(1, 2)
    for axes, kind, label in ((losses, "loss", "loss (nats)"), (accuracies, "top1", "top-1")):
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
    return chart(figure, alt=f"Loss and top-1 accuracy by epoch, on the training images and on {split}")


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
