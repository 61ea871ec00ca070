"""Tables for the terminal and for Markdown files."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text too.

    >>> print(markdown_table([("seed", "top1"), ("0", "0.98"), ("mean", "0.9850")]))
    | seed | top1   |
    |------|--------|
    | 0    | 0.98   |
    | mean | 0.9850 |

    Args:
      rows: the head and at least one row, of one length.
    """
    head, *body = _aligned(rows)
    rule = "|" + "|".join("-" * (len(cell) + 2) for cell in head) + "|"
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], rule, *lines[1:]])


def plain_table(rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> str:
    """A table for the terminal, of which the columns ``numbers`` stand at the right; the first row is its head."""
    return "\n".join("  ".join(cells).rstrip() for cells in _aligned(rows, numbers))


def _aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> list[list[str]]:
    """The cells of each row, filled up to the width of their column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.rjust(width) if index in numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
