"""How sure a figure is: bootstrap intervals, and the comparison of two models on the same examples."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap, ttest_ind

LEVEL = 0.95
RESAMPLES = 2000
_SEED = 0  # the same interval at every evaluation


def interval_of_mean(values: np.ndarray) -> list[float]:
    """Returns the 95% bootstrap interval (percentile) of the mean of values of examples.

    >>> interval_of_mean(np.ones(10))
    [1.0, 1.0]

    Args:
      values: float [N], N at least 2.
    """
    if np.ptp(values) == 0:
        return [float(values[0])] * 2
    found = bootstrap((values,), np.mean, batch=100, **_options())
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def resampled_sums(values: np.ndarray) -> np.ndarray:
    """Returns sums over examples drawn with replacement, always the same ones, to take figures of the sums from.

    >>> resampled_sums(np.ones((3, 2)))[0].tolist()
    [3.0, 3.0]

    Args:
      values: of each example, [N,...], whole numbers.

    Returns:
      float64 [R,...], R resamples; exact below 2**53.
    """
    count, flat = len(values), values.reshape(len(values), -1).astype(np.float64)
    rng = np.random.default_rng(_SEED)
    # How often each example is drawn, times the values, a hundred resamples at a time.
    batches = [
        np.stack([np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(100)]) @ flat
        for _ in range(RESAMPLES // 100)
    ]
    return np.concatenate(batches).reshape(RESAMPLES, *values.shape[1:])


def interval_of_resampled(values: np.ndarray) -> list[float]:
    """Returns the 95% percentile interval of a figure, given its value in each resample, float [R]."""
    tail = (1 - LEVEL) / 2
    return [float(end) for end in np.quantile(values, [tail, 1 - tail])]


def paired_comparison(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Compares two classifiers on the same examples.

    Args:
      first: whether the first is right about each example, bool [N].
      second: whether the second is.

    Returns:
      ``difference``: accuracy of the second less that of the first. ``interval``: its 95% bootstrap interval over the
      examples. ``only_first`` and ``only_second``: how many examples just one of them is right about. ``p_value``: of
      McNemar's exact test, that both are equally accurate.

    Reference:
      McNemar, `Note on the sampling error of the difference between correlated proportions or percentages
      <https://doi.org/10.1007/BF02295996>`_, 1947. The test says nothing about other seeds of the same recipe.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    differences = second.astype(np.float64) - first.astype(np.float64)
    return {
        "difference": float(differences.mean()),
        "interval": interval_of_mean(differences),
        "only_first": only_first,
        "only_second": only_second,
        "p_value": float(binomtest(only_first, differing).pvalue) if differing else 1.0,
    }


def difference_of_means(first: Sequence[float], second: Sequence[float]) -> tuple[float, list[float] | None]:
    """Compares a figure of two recipes over the seeds of each.

    >>> difference_of_means([0.5, 0.75], [0.875])
    (0.25, None)

    Args:
      first: the figure of each seed of the first recipe.
      second: the figure of each seed of the second.

    Returns:
      The mean of the second less that of the first, and its 95% interval by Welch's t-test; None if a recipe has fewer
      than two seeds, or if neither varies at all.

    Reference:
      Welch, `The generalization of "Student's" problem when several different population variances are involved
      <https://doi.org/10.1093/biomet/34.1-2.28>`_, 1947.
    """
    difference = float(np.mean(second) - np.mean(first))
    if min(len(first), len(second)) < 2 or not (np.ptp(first) or np.ptp(second)):
        return difference, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one of them may be constant, which is exact here
        found = ttest_ind(second, first, equal_var=False).confidence_interval(LEVEL)
    return difference, [float(found.low), float(found.high)]


def _options() -> dict[str, Any]:
    return {
        "confidence_level": LEVEL,
        "n_resamples": RESAMPLES,
        "method": "percentile",
        "rng": np.random.default_rng(_SEED),
    }
