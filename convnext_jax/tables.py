"""Tables for the terminal and for Markdown files, which are the same."""

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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])
