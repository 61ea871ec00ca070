"""Mean and standard deviation of figures over the seeds of an experiment."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from convnext_jax.report.tables import markdown_table


def over_seeds(figures: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation (n - 1) of each figure.

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


def seed_table(figures: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """A table of the figures of these names of each seed, two or more, with their mean and standard deviation."""
    columns = {seed: {name: row[name] for name in names} for seed, row in figures.items()}
    rows = columns | over_seeds(columns.values())
    return markdown_table([["seed", *names], *([row, *(f"{rows[row][name]:.4f}" for name in names)] for row in rows)])
