"""All figures of a classifier that follow from its logits and the labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from convnext_jax.data.superclasses import superclasses_of
from convnext_jax.evaluate.calibration import brier_scores, equal_mass_bins, equal_width_bins
from convnext_jax.evaluate.uncertainty import interval_of_mean


def ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the rank of the right class of each example, as `convnext_jax.tasks.classification.label_rank` does.

    >>> ranks(np.array([[0.1, 0.7, 0.2], [1.0, 1.0, 0.0]]), np.array([2, 0])).tolist()
    [1, 0]

    Args:
      logits: float [N,K].
      labels: int [N].

    Returns:
      int64 [N]; K for a row with a NaN.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < labels[:, None]))
    return np.where(np.isnan(logits).any(-1), logits.shape[1], before.sum(-1))


def accuracy_figures(logits: np.ndarray, labels: np.ndarray, *, intervals: bool = True) -> dict[str, Any]:
    """Returns ``top1`` and ``top5`` (fractions), ``loss`` (nats), ``brier``, ``ece`` and ``ece_equal_mass``.

    The loss is the cross-entropy without label smoothing. The calibration errors are over 15 bins of equal width and of
    equal count; see `convnext_jax.evaluate.calibration`.

    Args:
      logits: float [N,K].
      labels: int [N].
      intervals: whether ``intervals`` is added: by figure, its 95% bootstrap interval over the examples. The
        calibration errors have none: chance makes them larger, and a resample has that twice.
    """
    rank, rows = ranks(logits, labels), np.arange(len(labels))
    probabilities = softmax(np.asarray(logits, np.float64), axis=-1)
    by_example = {
        "top1": (rank < 1).astype(np.float64),
        "top5": (rank < 5).astype(np.float64),
        "loss": -log_softmax(np.asarray(logits, np.float64), axis=-1)[rows, labels],
        "brier": brier_scores(probabilities, labels),
    }
    confidence, correct = np.nan_to_num(probabilities.max(-1)), rank < 1
    figures: dict[str, Any] = {name: float(values.mean()) for name, values in by_example.items()}
    figures["ece"] = equal_width_bins(confidence, correct).error
    figures["ece_equal_mass"] = equal_mass_bins(confidence, correct).error
    if intervals and len(labels) > 1:
        figures["intervals"] = {name: interval_of_mean(values) for name, values in by_example.items()}
    return figures


def class_figures(
    predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Returns ``precision``, ``recall``, ``f1`` and ``examples`` of each class, by its name.

    A class that was never predicted has a precision of 0, and one without examples a recall of 0.

    Args:
      predicted: the class that each example was taken for, int [N].
      labels: int [N].
      class_names: K names.
    """
    confusion = confusion_counts(predicted, labels, len(class_names))
    hits, examples, taken = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    columns = {"precision": (hits, taken), "recall": (hits, examples), "f1": (2 * hits, examples + taken)}
    shares = {name: above / np.maximum(below, 1) for name, (above, below) in columns.items()}
    return {
        name: {**{share: float(values[index]) for share, values in shares.items()}, "examples": int(examples[index])}
        for index, name in enumerate(class_names)
    }


def confusion_counts(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how many examples of each class, the rows, were taken for each class, the columns; int64 [K,K].

    >>> confusion_counts(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]

    Args:
      predicted: the class that each example was taken for, int [N].
      labels: int [N].
      num_classes: K.
    """
    pairs = np.asarray(labels, np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def superclass_figures(
    predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Returns `class_figures` of the superclasses: a confusion within one is right. Empty if there are none."""
    groups = superclasses_of(class_names)
    number = {member: index for index, members in enumerate(groups.values()) for member in members}
    if not groups:
        return {}
    of_class = np.array([number[name] for name in class_names])
    return class_figures(of_class[predicted], of_class[labels], tuple(groups))
