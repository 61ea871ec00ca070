"""The seeds of an experiment: which runs they are, and mean and standard deviation of their figures."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def group_by_seed(runs: Iterable[T], key: Callable[[T], Any], seed: Callable[[T], int]) -> list[list[T]]:
    """Groups runs whose keys are equal, in the order of the first of each group.

    A second run of the same seed is no further sample of the training, so it begins a group of its own.

    >>> group_by_seed([("a", 0), ("b", 0), ("a", 1), ("a", 0)], key=lambda run: run[0], seed=lambda run: run[1])
    [[('a', 0), ('a', 1)], [('b', 0)], [('a', 0)]]
    """
    groups: list[tuple[Any, list[T]]] = []
    for run in runs:
        own = key(run)
        for other, members in groups:
            if other == own and seed(run) not in map(seed, members):
                members.append(run)
                break
        else:
            groups.append((own, [run]))
    return [members for _, members in groups]


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
