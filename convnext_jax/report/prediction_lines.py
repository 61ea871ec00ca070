"""What a network says of pictures as text, a line for each picture, written as it becomes known."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import numpy as np

_WIDEST = 24  # characters of a column; a longer name is not cut, and pushes the others aside


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Classes of a picture by a number that each has, the largest first.

    Attributes:
      classes: the names of all classes.
      top_k: how many of them a line has.
      head: of the columns of a table, before the rank.
      key: of the list in a JSON object.
      number: the key of the number that a class has.
    """

    classes: Sequence[str]
    top_k: int
    head: str = "top"
    key: str = "predictions"
    number: str = "probability"

    @property
    def width(self) -> int:
        """Characters of a class."""
        return min(max(map(len, self.classes)), _WIDEST)

    def best(self, numbers: "np.ndarray") -> Iterator[list[tuple[str, float]]]:
        """Yields for each picture its first classes with their numbers, given those of all classes, [N,K]."""
        for row, order in zip(numbers, (-numbers).argsort(-1, kind="stable")[:, : self.top_k], strict=True):
            yield [(str(self.classes[index]), float(row[index])) for index in order]


class Table:
    """Writes a line for each picture, below a head. All columns but the last have a fixed width.

    Args:
      file: what it writes to.
      rankings: what a line has of its picture.
    """

    def __init__(self, file: TextIO, rankings: Sequence[Ranking]) -> None:
        self._file, self._rankings = file, rankings
        self._has_head = False

    def write(self, names: Sequence[str], numbers: Sequence["np.ndarray"], masks: Sequence[str] | None = None) -> None:
        """Writes the lines of pictures.

        Args:
          names: their paths.
          numbers: of all classes in each ranking, float [N,K].
          masks: the files of their masks, if there are any.
        """
        if not self._has_head:
            ranks = (
                f"{each.head} {rank}".ljust(each.width + len(" 0.1234"))
                for each in self._rankings
                for rank in range(1, each.top_k + 1)
            )
            of_masks = [] if masks is None else ["mask".ljust(_WIDEST)]
            print(*ranks, *of_masks, "picture", sep="  ", file=self._file)
            self._has_head = True
        rankings = zip(*(each.best(array) for each, array in zip(self._rankings, numbers, strict=True)), strict=True)
        for number, (name, ranked) in enumerate(zip(names, rankings, strict=True)):
            cells = (
                f"{label:<{each.width}} {value:.4f}"
                for each, best in zip(self._rankings, ranked, strict=True)
                for label, value in best
            )
            of_masks = [] if masks is None else [masks[number].ljust(_WIDEST)]
            print(*cells, *of_masks, name, sep="  ", file=self._file)
        self._file.flush()


class JsonLines:
    """Writes a JSON object for each picture; see `Table`."""

    def __init__(self, file: TextIO, rankings: Sequence[Ranking]) -> None:
        self._file, self._rankings = file, rankings

    def write(self, names: Sequence[str], numbers: Sequence["np.ndarray"], masks: Sequence[str] | None = None) -> None:
        """See `Table.write`."""
        rankings = zip(*(each.best(array) for each, array in zip(self._rankings, numbers, strict=True)), strict=True)
        for number, (name, ranked) in enumerate(zip(names, rankings, strict=True)):
            told = {
                each.key: [{"class": label, each.number: value} for label, value in best]
                for each, best in zip(self._rankings, ranked, strict=True)
            }
            of_masks = {} if masks is None else {"mask": masks[number]}
            print(json.dumps({"picture": name} | of_masks | told), file=self._file)
        self._file.flush()


FORMATS = {"table": Table, "jsonl": JsonLines}
