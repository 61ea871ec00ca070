"""The most probable classes of pictures as text, a line for each picture, written as they become known."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import numpy as np

_WIDEST = 24  # characters of a column; a longer name is not cut, and pushes the others aside


class Table:
    """Writes a line for each picture, below a head. All columns but the last have a fixed width.

    Args:
      file: what it writes to.
      classes: the names of all classes.
      top_k: how many of them a line has.
    """

    def __init__(self, file: TextIO, classes: Sequence[str], top_k: int) -> None:
        self._file, self._classes, self._top_k = file, classes, top_k
        self._width = min(max(map(len, classes)), _WIDEST)
        self._has_head = False

    def write(self, names: Sequence[str], probabilities: "np.ndarray") -> None:
        """Writes the lines of pictures, given their paths and probabilities, [N,K]."""
        if not self._has_head:
            ranks = (f"top {rank}".ljust(self._width + len(" 0.1234")) for rank in range(1, self._top_k + 1))
            print(*ranks, "picture", sep="  ", file=self._file)
            self._has_head = True
        for name, best in zip(names, _best(self._classes, probabilities, self._top_k), strict=True):
            cells = (f"{label:<{self._width}} {probability:.4f}" for label, probability in best)
            print(*cells, name, sep="  ", file=self._file)
        self._file.flush()


class JsonLines:
    """Writes a JSON object for each picture; see `Table`."""

    def __init__(self, file: TextIO, classes: Sequence[str], top_k: int) -> None:
        self._file, self._classes, self._top_k = file, classes, top_k

    def write(self, names: Sequence[str], probabilities: "np.ndarray") -> None:
        """See `Table.write`."""
        for name, best in zip(names, _best(self._classes, probabilities, self._top_k), strict=True):
            predictions = [{"class": label, "probability": probability} for label, probability in best]
            print(json.dumps({"picture": name, "predictions": predictions}), file=self._file)
        self._file.flush()


FORMATS = {"table": Table, "jsonl": JsonLines}


def _best(classes: Sequence[str], probabilities: "np.ndarray", top_k: int) -> Iterator[list[tuple[str, float]]]:
    """Yields for each picture its most probable classes, with their probabilities."""
    for row, order in zip(probabilities, (-probabilities).argsort(-1, kind="stable")[:, :top_k], strict=True):
        yield [(str(classes[index]), float(row[index])) for index in order]
