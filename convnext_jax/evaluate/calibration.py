"""How far the confidence of a classifier can be believed: calibration error, Brier score, temperature scaling.

Reference:
  Guo et al., `On Calibration of Modern Neural Networks <https://arxiv.org/abs/1706.04599>`_, 2017.
"""

import dataclasses

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15  # as in the reference


@dataclasses.dataclass(frozen=True)
class Bins:
    """Predictions grouped by their confidence, the bars of a reliability diagram. Empty bins are left out.

    Attributes:
      count: predictions in each bin, int64 [bins].
      confidence: their mean confidence, float64 [bins].
      accuracy: the fraction of them that is right, float64 [bins].
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean of ``|accuracy - confidence|``, weighted by count."""
        return float(np.abs(self.accuracy - self.confidence) @ self.count / self.count.sum())


def equal_width_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Bins:
    """Groups predictions into bins of equal width over [0, 1]. A bin contains its upper end.

    >>> round(equal_width_bins(np.array([0.55, 0.65, 0.95]), np.array([True, False, True]), bins=2).error, 6)
    0.05

    Args:
      confidence: the largest probability of each prediction, float64 [N] in [0, 1].
      correct: whether each is right, bool [N].
      bins: number of bins.
    """
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return _grouped(number, bins, confidence, correct)


def equal_mass_bins(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Bins:
    """Groups predictions into bins of as equal a count as possible, by their rank; see `equal_width_bins`."""
    number = np.empty(len(confidence), np.int64)
    number[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // len(confidence)
    return _grouped(number, bins, confidence, correct)


def _grouped(number: np.ndarray, bins: int, confidence: np.ndarray, correct: np.ndarray) -> Bins:
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    confidences, rights = (
        np.bincount(number, weights=np.asarray(values, np.float64), minlength=bins)[filled] / count[filled]
        for values in (confidence, correct)
    )
    return Bins(count[filled], confidences, rights)


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the Brier score of each prediction, ``sum_k (p_k - [k = y])^2``, in [0, 2] (Brier, 1950).

    >>> brier_scores(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1])).tolist()
    [0.5, 0.0]

    Args:
      probabilities: float64 [N,K].
      labels: int [N].

    Returns:
      float64 [N].
    """
    return ((probabilities - np.eye(probabilities.shape[-1])[labels]) ** 2).sum(-1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T with the smallest cross-entropy of ``softmax(logits / T)``, between 1/20 and 20.

    Args:
      logits: float [N,K], of examples that the network was not trained on.
      labels: int [N].
    """
    logits, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=-1)[rows, labels].mean())

    # The loss is convex in 1 / T, so it has one minimum.
    found = minimize_scalar(loss, bounds=(-np.log(20.0), np.log(20.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
