"""Files that appear whole or not at all, and work that one process does while the others wait."""

import contextlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from convnext_jax.errors import UserError
from convnext_jax.storage.cloud import is_cloud

log = logging.getLogger(__name__)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. A reader sees the old content or the new one, never a part."""
    if is_cloud(path):  # an object appears in a bucket once it is complete
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:  # the disk is full, or the process is interrupted
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def parse_json(text: str | bytes) -> Any:
    """Returns what a JSON text says; raises ValueError if it is none.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Makes a folder that appears under its name only once it is complete.

    Args:
      path: the folder to make. Its parent is created; the folder itself must not exist when the context ends.

    Yields:
      A temporary folder to fill. It becomes ``path`` if the context ends without an error and is deleted otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.tmp-", dir=path.parent) as temporary:
        complete = Path(temporary) / path.name
        complete.mkdir()
        yield complete
        complete.rename(path)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file ``path``, and waits for as long as another process holds it.

    The operating system releases the lock when its process ends, however it ends.

    Args:
      path: the lock file; its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0.5)
    except filelock.Timeout:
        log.warning("waiting for another process that holds %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_writable(folder: Path) -> bool:
    """Returns whether new files may be put into ``folder``, or into the nearest existing folder above it.

    A folder whose permission bits allow nobody to write counts as read-only, even for the superuser.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    allowed = folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return bool(allowed) and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def sweep(folder: Path, pattern: str) -> None:
    """Removes what matches ``pattern`` in ``folder``: what a killed process left behind.

    The caller makes sure that no other process is using these names, usually with a lock.
    """
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def user_cache_folder() -> Path:
    """Returns this project's part of the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache", "set HOME or XDG_CACHE_HOME")) / "convnext_jax"


def expanded(path: str, remedy: str = "write the path without it, or set HOME") -> Path:
    """Returns a path with ``~`` and ``~user`` replaced by the home folder.

    Raises:
      UserError: there is no such user, or, as for the numeric user of a container, no home folder is known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: no home folder is known for {Path(path).parts[0]}; {remedy}") from error
