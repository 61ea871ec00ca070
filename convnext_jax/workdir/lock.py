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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from convnext_jax.errors import Failure, UserError, system_reason
from convnext_jax.storage.cloud import is_cloud, modified_at
from convnext_jax.storage.files import parse_json

SILENCE = 600.0  # seconds after which an owner on another host is taken for gone
HEARTBEAT = 30.0
_FILE = "run.lock"

log = logging.getLogger(__name__)


class LockLost(Failure):
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
        self._file = _LockObject(workdir) if is_cloud(workdir) else _LockFile(workdir)
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
            with contextlib.suppress(Exception):  # the folder may be gone, or the bucket out of reach
                self._file.write("")
        self._file.close()

    def _acquire(self) -> None:
        free = self._file.acquire()
        owner = _parse(self._file.read())
        if not free:
            raise UserError(self._refusal(owner))
        if owner is not None:
            if not self._file.is_dead(owner, self._me) and self._file.silence() < SILENCE:
                raise UserError(self._refusal(owner))
            log.warning("%s was last used by %s, which is gone; going on", self._workdir, _name(owner))
        self._file.write(json.dumps(self._me))

    def _refusal(self, owner: dict[str, Any] | None) -> str:
        who = "another process" if owner is None else _name(owner)
        if owner is not None and owner.get("host") != self._me["host"]:
            who += f" (if that host is gone, its lock ends {SILENCE / 60:.0f} minutes after its last sign of life)"
        return f"{self._workdir} is in use by {who}; wait for it, stop it, or choose another --workdir"

    def _beat(self) -> None:
        pause = self._file.first_beat or HEARTBEAT
        while not self._ended.wait(pause):
            pause = HEARTBEAT
            with contextlib.suppress(Exception):  # the folder may be out of reach for a while
                owner = _parse(self._file.read_by_name())
                if owner is not None and owner != self._me:
                    self._taken_by = owner
                    return
                self._file.touch(json.dumps(self._me))


class _LockFile:
    """The lock of a folder on a disk: a file that the operating system locks."""

    first_beat: float | None = None

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._locked = True
        self._file = (workdir / _FILE).open("a+", encoding="utf-8", errors="replace")

    def acquire(self) -> bool:
        """Returns whether no other process of this host, or of one that shares its locks, has it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a file system without locks; what is written in the file must do
            log.warning("%s: locks do not work here (%s)", self._workdir, system_reason(error))
            self._locked = False
        return True

    def is_dead(self, owner: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
        """Returns whether an owner is known to have ended: one of this host would have the lock, if there are locks."""
        return owner.get("host") == me["host"] and (self._locked or not _is_other_process(owner, me))

    def read(self) -> str:
        """Returns what the file says."""
        self._file.seek(0)
        return self._file.read()

    def read_by_name(self) -> str:
        """Returns what the file says that has the name now."""
        return (self._workdir / _FILE).read_text(encoding="utf-8", errors="replace")

    def write(self, text: str) -> None:
        """Replaces what the file says. Not by renaming: the lock belongs to the file itself."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()

    def touch(self, text: str) -> None:
        """Shows that the owner is alive."""
        del text
        os.utime(self._file.fileno())

    def silence(self) -> float:
        """Returns the seconds since the owner touched the file, by the clock of the file system."""
        with tempfile.NamedTemporaryFile(dir=self._workdir, prefix=".now-") as now:
            return os.fstat(now.fileno()).st_mtime - os.fstat(self._file.fileno()).st_mtime

    def close(self) -> None:
        """Gives the lock up."""
        self._file.close()


class _LockObject:
    """The lock of a folder in a bucket: an object that says who wrote it last.

    Two starts in the same second both write it. The one that wrote first sees the other's name at its first beat.
    """

    first_beat: float | None = 2.0

    def __init__(self, workdir: Path) -> None:
        self._path, self._now = workdir / _FILE, workdir / f".now-{os.getpid()}"

    def acquire(self) -> bool:
        """Returns True: a bucket locks nothing."""
        return True

    def is_dead(self, owner: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
        """Returns whether an owner is known to have ended: a process of this host that is no more."""
        return owner.get("host") == me["host"] and not _is_other_process(owner, me)

    def read(self) -> str:
        """Returns what the object says, nothing if there is none."""
        try:
            return self._path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def read_by_name(self) -> str:
        """Returns what the object says."""
        return self.read()

    def write(self, text: str) -> None:
        """Replaces what the object says."""
        self._path.write_text(text, encoding="utf-8")

    def touch(self, text: str) -> None:
        """Shows that the owner is alive."""
        self.write(text)

    def silence(self) -> float:
        """Returns the seconds since the owner touched the object, by the bucket's clock."""
        self._now.write_text("")
        try:
            return modified_at(self._now) - modified_at(self._path)
        finally:
            self._now.unlink()

    def close(self) -> None:
        """Does nothing."""


def _is_other_process(owner: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
    """Returns whether an owner, of this host, is a process that still runs, and not this one."""
    pid = owner.get("pid")
    if owner == me or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # sends nothing
    except PermissionError:  # it runs, as another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _parse(text: str) -> dict[str, Any] | None:
    """Returns the owner that a file names, None if it is empty or cannot be understood, as in the middle of a write."""
    try:
        owner = parse_json(text)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) else None


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown host')}"
