"""One process does the work, the others wait; what a killed process left behind is swept away."""

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import filelock

log = logging.getLogger(__name__)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock file ``path``, waiting as long as another process holds it.

    The system lets go of the lock when its process ends, however it ends.

    Args:
      path: the lock file; its folder is made.
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
    """Whether new files may be put into ``folder``, or into the nearest existing folder above it.

    A folder whose permission bits allow nobody to write counts as read-only, even for the superuser.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    allowed = folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    return bool(allowed) and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def sweep(folder: Path, pattern: str) -> None:
    """Removes what matches ``pattern`` in ``folder``; the caller holds the lock that guards these names."""
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
