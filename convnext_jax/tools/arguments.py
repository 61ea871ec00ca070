"""What is wrong with an argument of a command whatever it is for: empty, unprintable, or no possible path.

An empty one is what ``--workdir "$UNSET"`` gives. As a path it would mean the current folder, and as a field of the
configuration that nothing was given.
"""

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from convnext_jax.errors import UserError, system_reason
from convnext_jax.storage.cloud import is_cloud
from convnext_jax.storage.files import is_writable

_UNPRINTABLE = ("Cc", "Cs")  # control characters, and bytes that are no text


def check_text(name: str, text: str, remedy: str = "give it a value") -> None:
    """Raises UserError for an argument that is empty, or that no message could repeat in one line.

    >>> check_text("--workdir", "")
    Traceback (most recent call last):
    convnext_jax.errors.UserError: --workdir is empty, as an unset variable of the shell is; give it a value

    Args:
      name: the argument, as the user knows it.
      text: what was given.
      remedy: what to do about an empty one.
    """
    if not text.strip():
        raise UserError(f"{name} is empty, as an unset variable of the shell is; {remedy}")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        raise UserError(f"{name} {ascii(text):.100}: holds a control character or bytes that are no text; remove them")


def check_path(name: str, path: Path) -> None:
    """Raises UserError for a path that no file can have, or that the system does not let us look at.

    >>> check_path("--workdir", Path("x" * 5000))
    Traceback (most recent call last):
    convnext_jax.errors.UserError: --workdir xxxxxxxxxx...: File name too long; give another path

    Args:
      name: the argument, as the user knows it.
      path: what was given. It need not exist.
    """
    if is_cloud(path):
        return
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:10]}..."
        raise UserError(f"{name} {shown}: {system_reason(error)}; give another path") from error


@contextlib.contextmanager
def data_options(*names: str) -> Iterator[None]:
    """Makes a UserError inside name the options of a command in place of the fields of ``config.data``.

    >>> with data_options("data_dir"):
    ...     raise UserError("name it with --config.data.data_dir=DIR")
    Traceback (most recent call last):
    convnext_jax.errors.UserError: name it with --data_dir=DIR

    Args:
      names: the fields that are options of the command.
    """
    try:
        yield
    except UserError as error:
        text = re.sub(rf"(--)?\bconfig\.data\.({'|'.join(names)})\b", r"--\2", str(error))
        raise UserError(text) from error


def check_new_folder(name: str, folder: Path) -> None:
    """Raises UserError if a folder could not be made or written to, before the work for it is done."""
    if is_cloud(folder):
        return
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"{name} {folder}: {nearest} is a file; give a folder")
    if not is_writable(nearest):
        raise UserError(f"{name} {folder}: {nearest} may not be written to; give another folder")


def check_new_file(name: str, file: Path) -> None:
    """Raises UserError if a file could not be written for want of its folder, before the work for it is done."""
    if file.is_dir():
        raise UserError(f"{name} {file}: this is a folder; give a file")
    if not file.parent.is_dir():
        raise UserError(f"{name} {file}: there is no folder {file.parent}; make it, or give another file")
    if not is_writable(file.parent):
        raise UserError(f"{name} {file}: {file.parent} may not be written to; give another file")
