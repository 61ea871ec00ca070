"""The pictures below a folder, at any depth, and a count of the files that are none."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from convnext_jax.data.decode import SUFFIXES
from convnext_jax.errors import UserError, system_reason

Identity = tuple[int, int]  # of a folder, whatever links lead to it


def list_folder(folder: Path, left_out: Counter[str] | None = None) -> tuple[list[Path], list[Path]]:
    """Lists what lies directly in a folder.

    Args:
      folder: the folder.
      left_out: is added to: how many files are no pictures, by reason. A reason is a suffix, such as ``.txt``, or
        words. Files in a hidden folder are hidden. None counts nothing.

    Returns:
      The folders and the pictures, both in alphabetical order. Links are followed.

    Raises:
      UserError: the folder cannot be read.
    """
    folders, pictures = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                kind = _kind(entry)
                if kind == "folder":
                    folders.append(folder / entry.name)
                elif kind == "picture":
                    pictures.append(folder / entry.name)
                elif left_out is not None:
                    hidden_folder = kind == "hidden" and entry.is_dir(follow_symlinks=False)
                    left_out[kind] += count_files(folder / entry.name) if hidden_folder else 1
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read ({system_reason(error)}): change its permissions") from error
    return folders, pictures


def find_pictures(folder: Path, left_out: Counter[str], above: Iterable[Path] = ()) -> list[Path]:
    """Lists the pictures in a folder and in the folders below it.

    Args:
      folder: the folder.
      left_out: see `list_folder`.
      above: folders that links must not lead back to.

    Returns:
      The pictures of the folder in alphabetical order, then those of each folder in it, as torchvision's
      ``ImageFolder`` has them. A folder that links lead to again is listed once.

    Raises:
      UserError: a folder cannot be read.
    """
    found: list[Path] = []
    seen = {_identity(path) for path in above}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        identity = _identity(current)
        if identity in seen:
            left_out["links back to a folder"] += 1
            continue
        seen.add(identity)
        folders, pictures = list_folder(current, left_out)
        found += pictures
        waiting += reversed(folders)
    return found


def count_files(folder: Path) -> int:
    """Returns how many files there are in a folder and below it, without following links."""
    return sum(len(files) for _, _, files in os.walk(folder))


def _kind(entry: "os.DirEntry[str]") -> str:
    """Returns "folder", "picture", or why something else is left out."""
    if entry.name.startswith("."):  # file managers leave such files behind, some with the suffix of a picture
        return "hidden"
    try:
        if entry.is_dir():
            return "folder"
        is_file = entry.is_file()
    except OSError:  # a link to itself
        return "broken links"
    if not is_file:
        return "broken links" if entry.is_symlink() else "no files"
    suffix = os.path.splitext(entry.name)[1].lower()
    if not suffix:
        return "without a suffix"
    if suffix in SUFFIXES:
        return "picture"
    return suffix if re.fullmatch(r"\.[\w+-]{1,10}", suffix) else "of other kinds"


def _identity(folder: Path) -> Identity:
    try:
        status = folder.stat()
    except OSError as error:
        raise UserError(f"folder {folder} cannot be read ({system_reason(error)}): change its permissions") from error
    return status.st_dev, status.st_ino
