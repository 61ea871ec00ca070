"""The paths of pictures that a user names: files, folders, and lists on the standard input."""

import os
import sys
from collections.abc import Iterable, Iterator

from convnext_jax.data.image_folder import SUFFIXES


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

    def note(error: OSError) -> None:
        unreadable.append(f"folder {error.filename} cannot be read ({error.strerror})")

    seen: set[str] = set()  # a link may lead back to a folder above it
    for parent, folders, files in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        yield from (os.path.join(parent, name) for name in names)
