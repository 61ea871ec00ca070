"""The paths of pictures that a user names: files, folders, and lists on the standard input."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from convnext_jax.data.picture_files import list_folder
from convnext_jax.errors import UserError


def picture_paths(names: Iterable[str], unreadable: list[str]) -> Iterator[str]:
    """Yields the paths of pictures, one after the other, so that there may be any number of them.

    Args:
      names: files, which are taken whatever their suffix, folders, and ``-`` for paths on the standard input.
      unreadable: gets a message for each folder that cannot be read.
    """
    for name in names:
        if name == "-":
            yield from picture_paths(filter(None, (line.rstrip("\n") for line in sys.stdin)), unreadable)
        elif os.path.isdir(name):
            yield from pictures_below(name, unreadable)
        else:
            yield name


def pictures_below(folder: str, unreadable: list[str]) -> Iterator[str]:
    """Yields the paths of the pictures in a folder, at any depth, in the order of their names.

    Those of a folder come before those of the folders in it. Names that begin with a dot are left out.

    Args:
      folder: the folder.
      unreadable: see `picture_paths`.
    """

    seen: set[str] = set()  # a link may lead back to a folder above it
    waiting = [Path(folder)]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        try:
            folders, pictures = list_folder(current)
        except UserError as error:
            unreadable.append(str(error))
            continue
        yield from map(str, pictures)
        waiting += reversed(folders)
