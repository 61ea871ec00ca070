"""Mean and standard deviation of figures over the seeds of an experiment."""

import statistics
from collections.abc import Iterable, Mapping


def over_seeds(figures: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns the mean and the sample standard deviation (n - 1) of each figure.

    >>> over_seeds([{"top1": 0.5}, {"top1": 0.75}])["mean"]
    {'top1': 0.625}

    Args:
      figures: the same figures of two seeds or more.

    Returns:
      ``{"mean": {name: value}, "std": {name: value}}``.
    """
    rows = list(figures)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "std": {name: statistics.stdev(values) for name, values in columns.items()},
    }
