"""One workdir, one run: who is refused, who is gone, and who lost the folder meanwhile."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from convnext_jax.errors import UserError
from convnext_jax.workdir import lock
from convnext_jax.workdir.lock import LockLost, WorkdirLock

HOLD = "import sys, pathlib; from convnext_jax.workdir.lock import WorkdirLock; WorkdirLock(pathlib.Path(sys.argv[1]));"


def holder(workdir: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD + "print('held', flush=True); sys.stdin.read()", str(workdir)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def write_owner(workdir: Path, host: str, seconds_ago: float, pid: int = 7) -> None:
    path = workdir / "run.lock"
    path.write_text(json.dumps({"host": host, "pid": pid}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_a_second_run_is_refused_with_the_first_and_a_killed_one_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(UserError, match=rf"is in use by process {first.pid} on .*; wait for it, stop it"):
            WorkdirLock(tmp_path)
        first.kill()
        first.wait()
        with WorkdirLock(tmp_path):
            assert f"last used by process {first.pid} on" in caplog.text


def test_one_that_ended_leaves_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with WorkdirLock(tmp_path) as held:
            held.check()
            with pytest.raises(UserError, match=f"process {os.getpid()} on"):
                WorkdirLock(tmp_path)
    assert not caplog.text


def test_an_owner_on_another_host_is_gone_after_ten_silent_minutes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_owner(tmp_path, "elsewhere", seconds_ago=590)
    with pytest.raises(UserError, match="in use by process 7 on elsewhere"):
        WorkdirLock(tmp_path)
    write_owner(tmp_path, "elsewhere", seconds_ago=610)
    with WorkdirLock(tmp_path):
        assert "last used by process 7 on elsewhere, which is gone" in caplog.text


def test_without_locks_an_owner_on_this_host_is_gone_once_its_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", flock)
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as owner:
        write_owner(tmp_path, socket.gethostname(), seconds_ago=0, pid=owner.pid)
        with pytest.raises(UserError, match=f"in use by process {owner.pid} on"):
            WorkdirLock(tmp_path)
        owner.kill()
    with WorkdirLock(tmp_path):
        assert f"last used by process {owner.pid} on" in caplog.text


def test_a_run_keeps_its_lock_fresh_and_notices_when_it_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.05)
    with WorkdirLock(tmp_path) as held:
        os.utime(tmp_path / "run.lock", (0, 0))
        deadline = time.monotonic() + 20
        while (tmp_path / "run.lock").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "run.lock").stat().st_mtime > time.time() - 60
        held.check()
        (tmp_path / "run.lock").write_text("{")  # another one is in the middle of writing
        time.sleep(0.2)
        held.check()
        write_owner(tmp_path, "elsewhere", seconds_ago=0)
        with pytest.raises(LockLost, match="process 7 on elsewhere has taken over"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.01)
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == 7


def test_what_is_written_there_by_others_is_no_owner(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b"\x00\x00", b"\xff\xfe"):
        (tmp_path / "run.lock").write_bytes(content)
        with WorkdirLock(tmp_path):
            pass
