"""One workdir, one run: a lock that names its owner.

The operating system gives the lock up when its owner's process ends, however it ends. A folder that several hosts mount
may not carry the lock from one to another. So the owner also writes down who it is and touches the file now and then,
and an owner on another host counts as gone once it has been silent for ten minutes.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from convnext_jax.errors import UserError

SILENCE = 600.0  # seconds after which an owner on another host is taken for gone
HEARTBEAT = 30.0

log = logging.getLogger(__name__)


class LockLost(Exception):
    """Another run took the workdir over, since this one was silent for too long. The message names it."""


class WorkdirLock:
    """The right to write in a workdir, until the context ends.

    Args:
      workdir: the folder, which must exist.

    Raises:
      UserError: another run has it. The message names its host and its process.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._me = {"host": socket.gethostname(), "pid": os.getpid()}
        self._ended = threading.Event()
        self._taken_by: dict[str, Any] | None = None
        self._file = (workdir / "run.lock").open("a+", encoding="utf-8", errors="replace")
        try:
            self._acquire()
        except BaseException:
            self._file.close()
            raise
        self._thread = threading.Thread(target=self._beat, name="workdir lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises LockLost if the lock is no longer this run's."""
        if self._taken_by is not None:
            raise LockLost(f"{_name(self._taken_by)} has taken over {self._workdir}; this run ends here")

    def __enter__(self) -> "WorkdirLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._taken_by is None:
            self._write("")
        self._file.close()

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(self._refusal(self._owner())) from None
        except OSError as error:  # a file system without locks; what is written in the file must do
            log.warning("%s: locks do not work here (%s)", self._workdir, error.strerror)
        owner = self._owner()
        if owner is not None:
            if owner.get("host") != self._me["host"] and self._silence() < SILENCE:
                raise UserError(self._refusal(owner))
            log.warning("%s was last used by %s, which is gone; going on", self._workdir, _name(owner))
        self._write(json.dumps(self._me))

    def _refusal(self, owner: dict[str, Any] | None) -> str:
        who = "another process" if owner is None else _name(owner)
        return f"{self._workdir} is in use by {who}; wait for it, stop it, or choose another --workdir"

    def _owner(self) -> dict[str, Any] | None:
        """Returns what the file says, None if it is empty or cannot be understood."""
        self._file.seek(0)
        return _parse(self._file.read())

    def _write(self, text: str) -> None:
        # Not by renaming: the lock belongs to the file itself.
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def _silence(self) -> float:
        """Returns the seconds since the owner touched the file, by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self._workdir, prefix=".now-") as now:
            return os.fstat(now.fileno()).st_mtime - os.fstat(self._file.fileno()).st_mtime

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # the folder may be out of reach for a while
                owner = _parse((self._workdir / "run.lock").read_text(encoding="utf-8", errors="replace"))
                if owner is not None and owner != self._me:
                    self._taken_by = owner
                    return
                os.utime(self._file.fileno())


def _parse(text: str) -> dict[str, Any] | None:
    """Returns the owner that a file names, None if it is empty or cannot be understood, as in the middle of a write."""
    try:
        owner = json.loads(text)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) else None


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
