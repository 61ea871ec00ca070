"""Tables for the terminal and for Markdown files."""

from collections.abc import Mapping, Sequence
from typing import Any

from convnext_jax.evaluate.seeds import over_seeds


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns line up in plain text too.

    >>> print(markdown_table([("seed", "top1"), ("0", "0.98"), ("mean", "0.9850")]))
    | seed | top1   |
    |------|--------|
    | 0    | 0.98   |
    | mean | 0.9850 |
    >>> print(markdown_table([("class", "recall"), ("a|b", "0.98")]).splitlines()[2])
    | a\\|b  | 0.98   |

    Args:
      rows: the head and at least one row, all of the same length.
    """
    # A bar in a cell, as in the name of a class, would begin another cell.
    head, *body = _aligned([[cell.replace("|", "\\|") for cell in row] for row in rows])
    rule = "|" + "|".join("-" * (len(cell) + 2) for cell in head) + "|"
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], rule, *lines[1:]])


def plain_table(rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> str:
    """Returns a table for the terminal. The first row is its head, and the columns ``numbers`` are right-aligned."""
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(rows, numbers))


def _aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[list[str]]:
    """Returns the cells of each row, padded to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def seed_table(figures: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """Returns a table of figures of each seed, two or more, with their mean and standard deviation.

    Args:
      figures: by seed, figures by name.
      names: of the figures that are shown.
    """
    columns = {seed: {name: row[name] for name in names} for seed, row in figures.items()}
    rows = columns | over_seeds(columns.values())
    return markdown_table([["seed", *names], *([row, *(f"{rows[row][name]:.4f}" for name in names)] for row in rows)])
