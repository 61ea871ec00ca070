"""A file that only grows, as a log does, and that survives a full disk and a folder that is away for a while."""

import logging
import math
import time
from pathlib import Path

from convnext_jax.errors import first_line
from convnext_jax.storage.cloud import is_cloud
from convnext_jax.storage.files import write_bytes

CLOUD_SECONDS = 30.0  # between two uploads, each of the whole file: an object in a bucket cannot grow

log = logging.getLogger(__name__)


class GrowingFile:
    """A file that content is appended to.

    All of it is kept in memory too. So what cannot be written now is written later, and half a line that a full disk
    left is replaced.

    Args:
      path: the file. What it held before is replaced.
      content: what it begins with.
    """

    def __init__(self, path: Path, content: bytes = b"") -> None:
        self._path = path
        self._content = bytearray(content)
        self._written = 0  # bytes of the content that the file is known to hold
        self._interval = CLOUD_SECONDS if is_cloud(path) else 0.0
        self._last = -math.inf
        self._fails = False
        self._write_all()

    def append(self, content: bytes) -> None:
        """Appends content. In a bucket it appears within half a minute."""
        self._content += content
        if time.monotonic() - self._last >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Writes what is not written yet. If that fails, a warning says so once, and the content is kept for later."""
        self._last = time.monotonic()
        if self.is_whole:
            return
        try:
            self._write()
        except Exception as error:  # OSError, or whatever a bucket's library raises
            if not self._fails:
                log.warning(
                    "%s cannot be written (%s); what it lacks is written once it can be", self._path, first_line(error)
                )
            self._fails = True
        else:
            self._fails = False

    @property
    def is_whole(self) -> bool:
        """Whether everything is written."""
        return self._written == len(self._content)

    def _write(self) -> None:
        if is_cloud(self._path) or not self._path.exists() or self._path.stat().st_size < self._written:
            self._write_all()
            return
        with self._path.open("r+b") as file:
            file.seek(self._written)
            file.truncate()
            file.write(self._content[self._written :])
        self._written = len(self._content)

    def _write_all(self) -> None:
        write_bytes(self._path, bytes(self._content))
        self._written = len(self._content)
