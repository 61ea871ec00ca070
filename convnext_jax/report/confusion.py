"""A confusion matrix that can be read with ten classes and with two hundred."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from convnext_jax.report.page import Page, table, text

_LISTED = 20  # confusions


def similarity_order(counts: np.ndarray) -> np.ndarray:
    """Returns an order of the classes in which those that are confused with each other are neighbors.

    Args:
      counts: int [K,K], how often each class, a row, was taken for each, a column.

    Returns:
      int [K], a permutation.
    """
    if len(counts) < 3:
        return np.arange(len(counts))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    distances = 1.0 - (shares + shares.T) / 2
    np.fill_diagonal(distances, 0.0)
    return leaves_list(linkage(squareform(distances, checks=False), "average", optimal_ordering=True))


def top_confusions(counts: np.ndarray, class_names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """Returns the most frequent confusions: the true class, what it was taken for, how often, and its share.

    Args:
      counts: int [K,K], see `similarity_order`.
      class_names: K names.
    """
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    pairs = [divmod(int(index), len(counts)) for index in order]
    totals = counts.sum(1)
    return [
        (class_names[true], class_names[taken], int(wrong[true, taken]), float(wrong[true, taken] / totals[true]))
        for true, taken in pairs
        if wrong[true, taken]
    ]


def add_confusion(page: Page, counts: np.ndarray, class_names: Sequence[str], *, of: str = "examples") -> None:
    """Adds the section with the matrix, and the list of the most frequent confusions.

    Args:
      page: the page.
      counts: int [K,K], see `similarity_order`.
      class_names: K names.
      of: what is counted.
    """
    order = similarity_order(counts)
    rows = [("true class", "taken for", of, "share")]
    rows += [
        (true, taken, f"{times:,}", f"{share:.1%}") for true, taken, times, share in top_confusions(counts, class_names)
    ]
    ordered = {"names": [class_names[index] for index in order], "counts": counts[np.ix_(order, order)].tolist()}
    described = f"Confusion matrix of {len(class_names)} classes. Arrow keys move from cell to cell."
    page.add(
        "Confusion matrix",
        f'<p class="note">A row for each true class, a column for what it was taken for, counted in {text(of)}. Classes'
        " that are confused with each other are neighbors. Point at a cell, or use the arrow keys.</p>",
        '<p><label>Find a class <input id="confusion-search" type="search" autocomplete="off"></label>'
        ' <button id="confusion-in" type="button" aria-label="Enlarge">+</button>'
        ' <button id="confusion-out" type="button" aria-label="Reduce">&minus;</button></p>',
        '<div class="beside"><div><div id="confusion-viewport" class="matrix">'
        f'<canvas id="confusion-canvas" tabindex="0" role="img" aria-label="{text(described)}"></canvas></div>',
        '<p id="confusion-told" aria-live="polite" class="told"></p></div>',
        table(rows, caption="The most frequent confusions", numbers=(2, 3)) + "</div>",
    )
    script = Path(__file__).with_name("confusion.js").read_text(encoding="utf-8")
    # In a script only this could end it.
    content = json.dumps(ordered, ensure_ascii=False).replace("<", "\\u003c")
    page.add_script(f"const confusion = {content};\n{script}")
