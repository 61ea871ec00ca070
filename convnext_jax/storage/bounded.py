"""Reading a file that others made into memory, if it has no absurd size."""

import os
import stat
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError
from convnext_jax.storage.files import parse_json

# The description of a data set of 22,000 classes or of 2,000 record files has less than two.
MOST_JSON_BYTES = 64 << 20


def read_bounded(path: Path, most: int) -> bytes:
    """Returns the content of a file.

    Args:
      path: the file.
      most: how many bytes it may have.

    Raises:
      UserError: it has more, which is found before any of it is read, or it is no regular file.
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file: replace or remove it")
        if status.st_size > most:
            raise UserError(
                f"{path} has {status.st_size:,} bytes, and at most {most:,} make sense: replace or remove it"
            )
        return file.read()


def read_json(path: Path) -> Any:
    """Returns what a JSON file says.

    Raises:
      UserError: see `read_bounded`.
      OSError: it cannot be read.
      ValueError: it is no JSON.
    """
    return parse_json(read_bounded(path, MOST_JSON_BYTES))
