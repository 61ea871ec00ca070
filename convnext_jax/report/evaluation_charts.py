"""The charts of an evaluation's page: reliability, learning curves."""

from collections.abc import Mapping, Sequence

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
