"""Accuracy on images that are corrupted, shifted or scaled, from the predictions of one classifier."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from convnext_jax.errors import UserError, nearest
from convnext_jax.evaluate.corruptions.constants import SEVERITIES
from convnext_jax.evaluate.corruptions.registry import CORRUPTIONS, check_images, corrupt
from convnext_jax.evaluate.displacements import scale, translate
from convnext_jax.evaluate.predictions import Change

SHIFTS = (1, 2, 3, 4)  # pixels
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
SCALES = (0.7, 0.8, 0.9, 1.1, 1.2, 1.3)

NUMBER_OF_CHANGES = len(SEVERITIES) * len(CORRUPTIONS) + len(SHIFTS) * len(DIRECTIONS) + len(SCALES)

# The predicted classes of a whole split, int [N], after a change of its images; None is no change.
Predict = Callable[[Change | None], np.ndarray]


class CorruptedPart(NamedTuple):
    """The images of a split under one corruption at one severity.

    Attributes:
      corruption: its name.
      severity: 1 to 5.
      images: uint8 [N,H,W,C].
      labels: int32 [N].
    """

    corruption: str
    severity: int
    images: np.ndarray
    labels: np.ndarray


def measure_robustness(
    predict: Predict,
    labels: np.ndarray,
    image_shape: tuple[int, int, int],
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    seed: int = 0,
) -> dict[str, Any]:
    """Measures a classifier on corrupted, shifted and scaled images of a split.

    Args:
      predict: returns the predicted classes of the whole split after a change of its images.
      labels: int [N].
      image_shape: [H,W,C].
      corruptions: names of `convnext_jax.evaluate.corruptions.registry.CORRUPTIONS`.
      seed: of the random corruptions.

    Returns:
      The figures, ready for JSON. ``top1`` is the accuracy on the images as they are, ``corruptions`` what
      `summarize_corruptions` returns, ``translation`` and ``scale`` a row for each distance in pixels and each factor:
      ``top1``, and ``consistency``, the share of images whose prediction does not change. A translation's figures are
      means over four directions.

    Raises:
      UserError: no such corruption, or images that it is not defined for.
    """
    check_corruptions(corruptions)
    check_images((len(labels), *image_shape))
    unchanged = predict(None)
    clean = _accuracy(unchanged, labels)
    accuracies = {
        name: {severity: _accuracy(predict(corrupt(name, severity, seed=seed)), labels) for severity in SEVERITIES}
        for name in corruptions
    }

    def compare(changes: Iterable[Change]) -> dict[str, float]:
        predictions = [predict(change) for change in changes]
        return {
            "top1": statistics.fmean(_accuracy(each, labels) for each in predictions),
            "consistency": statistics.fmean(_accuracy(each, unchanged) for each in predictions),
        }

    same = {"top1": clean, "consistency": 1.0}
    shifts = {
        str(distance): compare(translate(distance * down, distance * right) for down, right in DIRECTIONS.values())
        for distance in SHIFTS
    }
    scales = {factor: compare([scale(factor)]) for factor in SCALES} | {1.0: same}
    return {
        "examples": len(labels),
        "top1": clean,
        "seed": seed,
        "corruptions": summarize_corruptions(accuracies, clean),
        "translation": {"0": same} | shifts,
        "scale": {str(factor): scales[factor] for factor in sorted(scales)},
    }


def measure_corrupted_set(
    predict: Callable[[np.ndarray], np.ndarray], parts: Iterable[CorruptedPart], clean: float | None = None
) -> dict[str, Any]:
    """Measures a classifier on a data set that was corrupted elsewhere, such as CIFAR-10-C.

    Args:
      predict: returns the predicted classes, int [N], of images, uint8 [N,H,W,C].
      parts: what `convnext_jax.evaluate.corrupted_sets.read_corrupted_set` yields.
      clean: the accuracy on the images as they are; None if it is not known.

    Returns:
      What `summarize_corruptions` returns.
    """
    accuracies: dict[str, dict[int, float]] = {}
    for name, severity, images, labels in parts:
        accuracies.setdefault(name, {})[severity] = _accuracy(predict(images), labels)
    return summarize_corruptions(accuracies, clean)


def summarize_corruptions(accuracies: Mapping[str, Mapping[int, float]], clean: float | None) -> dict[str, Any]:
    """Returns means over corruptions.

    The mean is a plain one. The mCE of the paper divides each error by that of AlexNet on the same images, which is
    known for ImageNet-C alone.

    >>> summarize_corruptions({"fog": {1: 0.75, 2: 0.25}, "snow": {1: 0.5}}, clean=1.0)["mean_top1"]
    0.5

    Args:
      accuracies: by corruption and severity.
      clean: the accuracy without corruption.

    Returns:
      ``by_severity``: each corruption's accuracy at each severity, ``top1``: its mean over them, ``mean_top1`` and
      ``mean_error``: over the corruptions. ``missing``: those of the 15 that it is not a mean of. If the clean accuracy
      is known and not 0, ``relative_drop`` is ``1 - mean_top1 / clean``.
    """
    means = {name: statistics.fmean(each.values()) for name, each in accuracies.items()}
    mean = statistics.fmean(means.values())
    figures = {
        "mean_top1": mean,
        "mean_error": 1.0 - mean,
        "top1": means,
        "by_severity": {
            name: {str(severity): value for severity, value in each.items()} for name, each in accuracies.items()
        },
        "missing": [name for name in CORRUPTIONS if name not in accuracies],
    }
    return figures | ({"relative_drop": 1.0 - mean / clean} if clean else {})


def check_corruptions(names: Sequence[str]) -> None:
    """Raises UserError unless each is the name of a corruption, and there is one."""
    if not names:
        raise UserError(f"name at least one corruption: {', '.join(CORRUPTIONS)}")
    for name in names:
        if name not in CORRUPTIONS:
            raise UserError(f"no corruption {name!r}: {nearest(name, CORRUPTIONS)}")


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float((predictions == labels).mean())
