"""Several processes over the loopback, as on several hosts: they train as one, stop as one, and none waits forever."""

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from convnext_jax.errors import UserError
from convnext_jax.run.peers import gather_at_lead, join_lead, listen
from convnext_jax.run.process_flags import ProcessFlags

# A network that compiles in seconds, with a moving average, drop path and augmentation in it.
OVERRIDES = (
    "--config.model.depths=(1,1,1,1)",
    "--config.model.dims=(16,16,32,32)",
    "--config.model.kernel_size=3",
    "--config.optim.warmup_epochs=1",
    "--config.optim.ema_decay=0.9",
    "--config.run.epochs=2",
    "--config.run.steps_per_dispatch=2",
    "--config.run.eval_every_epochs=1",
    "--config.run.batch_size=128",
)
STEPS = 22


def free_ports() -> int:
    """A port that is free, as is the one after it."""
    for _ in range(100):
        with socket.create_server(("", 0)) as first:
            port = first.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("", port + 1)):
                return port
    raise AssertionError("no two ports in a row are free")


def ipv6_loopback() -> str:
    """The loopback's address of IPv6, in brackets; that of IPv4 where there is no IPv6."""
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return "[::1]"
    return "127.0.0.1"


class Processes:
    """The processes of a run, started with the same command."""

    def __init__(
        self,
        workdir: Path,
        *extra: Sequence[str],
        devices: int = 1,
        timeout: float = 60,
        address: str = "127.0.0.1",
    ) -> None:
        self.workdir, port = workdir, free_ports()
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        self.processes = []
        for index, own in enumerate(extra):
            command = [sys.executable, "train.py", "--config", "configs/digits.py", "--workdir", str(workdir)]
            if len(extra) > 1:
                command += ["--coordinator", f"{address}:{port}", "--num_processes", str(len(extra))]
                command += ["--process_id", str(index), "--coordinator_timeout", str(timeout)]
            self.processes.append(
                subprocess.Popen(
                    [*command, *OVERRIDES, *own],
                    cwd=ROOT,
                    env=environment,
                    stderr=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                )
            )

    def wait_for_lines(self, count: int) -> None:
        """Waits until the log has a number of lines."""
        log, deadline = self.workdir / "metrics.jsonl", time.monotonic() + 120
        while not log.exists() or log.read_text().count("\n") < count:
            assert time.monotonic() < deadline and all(process.poll() is None for process in self.processes)
            time.sleep(0.02)

    def end(self, timeout: float = 180) -> list[tuple[int, str]]:
        """The status and the stderr of each."""
        ended = [(process.communicate(timeout=timeout)[1], process.returncode) for process in self.processes]
        return [(status, errors) for errors, status in ended]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("two") / "run"
    for status, errors in Processes(workdir, (), ()).end():
        assert status == 0, errors
    return workdir


def figures_of(workdir: Path) -> list[dict[str, float]]:
    clocks = ("seconds", "train/images_per_second")
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in clocks} for line in lines]


def test_two_processes_are_one_run(undisturbed: Path, tmp_path: Path) -> None:
    # The same two devices in one process.
    ((status, errors),) = Processes(tmp_path / "one", (), devices=2).end()
    assert status == 0, errors
    found, expected = figures_of(undisturbed), figures_of(tmp_path / "one")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert environment["process_count"] == 2
    # Begun in one process, it goes on in two.
    shutil.rmtree(tmp_path / "one" / "checkpoints" / str(STEPS))
    ended = Processes(tmp_path / "one", (), ()).end()
    assert [status for status, _ in ended] == [0, 0], ended
    assert f"resuming at step {STEPS // 2}" in ended[0][1]
    for ours, theirs in zip(figures_of(tmp_path / "one"), expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_if_one_dies_the_other_ends_and_both_go_on(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    for dies, lines in ((1, 2), (0, 8)):  # before the first checkpoint, and after it
        started = Processes(workdir, (), ())
        started.wait_for_lines(lines)
        started.processes[dies].kill()
        killed = time.monotonic()
        status, errors = started.end()[1 - dies]
        assert status == 75, errors
        assert time.monotonic() - killed < 60
        assert f"process {dies} on 127.0.0.1 is gone" in errors.replace("::ffff:", "")
    for status, errors in Processes(workdir, (), ()).end():
        assert status == 0, errors
    assert figures_of(workdir) == figures_of(undisturbed)


def test_a_signal_to_one_stops_all_and_another_number_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    # Streamed at first, where each process reads the examples of its own device.
    workdir, streamed = tmp_path / "run", ("--config.data.resident=never",)
    started = Processes(workdir, streamed, streamed, address=ipv6_loopback())
    started.wait_for_lines(2)
    started.processes[1].send_signal(signal.SIGTERM)
    ended = started.end()
    for status, errors in ended:
        assert status == 75, errors
        assert "SIGTERM: saved step" in errors
    assert "the training split is streamed" in ended[0][1]
    found = figures_of(workdir)
    assert len(found) >= 2
    for ours, theirs in zip(found, figures_of(undisturbed), strict=False):
        assert ours == pytest.approx(theirs, rel=1e-3)
    ((status, errors),) = Processes(workdir, ()).end()
    assert status == 0, errors
    assert "resuming at step" in errors
    last, expected = figures_of(workdir)[-1], figures_of(undisturbed)[-1]
    assert last["step"] == expected["step"] == STEPS
    assert last["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-2)


def test_a_mistake_ends_all_with_the_same_words(tmp_path: Path) -> None:
    started = Processes(tmp_path / "run", (), ("--config.optim.learning_rate=0.5",))
    for status, errors in started.end():
        assert status == 2, errors
        assert "config.optim.learning_rate: 0.002 in process 0, 0.5 in process 1" in errors
    assert not (tmp_path / "run").exists()


TWO_SAVES = """
import sys, time
from pathlib import Path
import jax, numpy as np
from convnext_jax.sharding import Sharding, make_mesh, put
from convnext_jax.workdir.checkpoints import Checkpoints

port, index, folder = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(index))
ones = put({"kernel": np.ones(3, np.float32)}, Sharding(make_mesh()).replicated)
with Checkpoints(Path(folder)) as checkpoints:
    checkpoints.save(1, {"params": ones, "opt_state": ones})
    checkpoints.wait()
    time.sleep(0.5 * int(index))
    for step in (1, 2):
        checkpoints.save(step, {"params": ones, "opt_state": ones}, {"test/top1": 0.5})
    assert checkpoints.metrics(1) == {"test/top1": 0.5}
"""


def test_one_of_several_that_is_late_adds_figures_to_a_checkpoint_as_all_do(tmp_path: Path) -> None:
    environment, port = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}, str(free_ports())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_SAVES, port, str(index), str(tmp_path / "checkpoints")],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for index in range(2)
    ]
    for process in started:
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 0, errors


VERSIONS = {"jax": "1"}


@contextlib.contextmanager
def lead_in_background(
    count: int, versions: Any = None, timeout: float = 5, first: Callable[[int], None] = lambda port: None
) -> Iterator[tuple[int, list[Any]]]:
    """A lead that waits for others in a thread; what it returned or raised is in the list afterwards.

    ``first(port)`` comes before it begins to wait.
    """
    import threading

    listening, results = listen(0), []
    first(listening.getsockname()[1])

    def wait() -> None:
        try:
            results.append(gather_at_lead(listening, count, versions or VERSIONS, timeout))
        except UserError as error:
            results.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    yield listening.getsockname()[1], results
    thread.join()


def test_a_process_that_does_not_come_is_named() -> None:
    with lead_in_background(3, timeout=1) as (port, results):
        with pytest.raises(UserError, match="process 0: of 3 processes number 2 did not come within 1 s"):
            join_lead(["127.0.0.1"], port, 1, 3, VERSIONS, timeout=5)
    assert results[0].startswith("of 3 processes number 2 did not come within 1 s")


@pytest.mark.parametrize(
    ("index", "count", "versions", "reason"),
    [
        (1, 2, VERSIONS, "--num_processes=3 in process 0, 2 in process 1"),
        (0, 3, VERSIONS, "--process_id=0 was given to two processes"),
        (1, 3, {"jax": "2"}, "process 0 has jax 1, process 1 jax 2"),
    ],
)
def test_a_process_that_does_not_belong_is_refused_everywhere(
    index: int, count: int, versions: Any, reason: str
) -> None:
    with lead_in_background(3) as (port, results):
        with pytest.raises(UserError, match=f"process 0: {reason}"):
            join_lead(["127.0.0.1"], port, index, count, versions, timeout=5)
    assert reason in results[0]


def test_a_stranger_on_the_port_is_ignored() -> None:
    with lead_in_background(2) as (port, results):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\n")
        with join_lead(["127.0.0.1"], port, 1, 2, VERSIONS, timeout=5) as peer:
            assert peer.count == 2 and not peer.lead
    with results[0]:
        pass


def test_a_stranger_that_is_gone_before_the_lead_looks_is_ignored() -> None:
    def knock(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed

    with lead_in_background(2, first=knock) as (port, results):
        with join_lead(["127.0.0.1"], port, 1, 2, VERSIONS, timeout=5) as peer:
            assert peer.count == 2
    with results[0]:
        pass


def test_a_coordinator_that_cannot_be_reached_is_named() -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ could not be reached within 1 s \(Connection refused\)"):
        join_lead(["127.0.0.1"], free_ports(), 1, 2, VERSIONS, timeout=1)
    assert time.monotonic() - started < 5


def test_what_is_gathered_is_the_same_everywhere() -> None:
    with lead_in_background(2) as (port, results):
        peer = join_lead(["127.0.0.1"], port, 1, 2, VERSIONS, timeout=5)
    lead, found = results[0], []
    import threading

    thread = threading.Thread(target=lambda: found.append(peer.gather({"b": 2})))
    thread.start()
    assert lead.gather({"a": (1,)}) == [{"a": [1]}, {"b": 2}]
    thread.join()
    assert found == [[{"a": [1]}, {"b": 2}]]
    for one in (lead, peer):
        one.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("10.0.0.1:8476", 2, None), "--process_id missing: several processes need --coordinator, --num_processes"),
        ((None, 2, 0), "--coordinator missing"),
        (("10.0.0.1:8476", 2, 2), r"--process_id=2: must be in \[0, 1\]"),
        (("10.0.0.1:8476", 0, 0), "--num_processes=0: must be 1 or more"),
        (("10.0.0.1", 2, 0), "--coordinator 10.0.0.1: must be HOST:PORT"),
        (("10.0.0.1:99999", 2, 0), "--coordinator 10.0.0.1:99999: must be HOST:PORT"),
        (("10.0.0.1:8476", 2, 0, math.inf), "--coordinator_timeout=inf: must be a number of seconds above 0"),
        (("10.0.0.1:8476", 2, 0, math.nan), "--coordinator_timeout=nan: must be"),
        ((None, None, None, -5.0), "--coordinator_timeout=-5: must be"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProcessFlags(*flags)


def test_an_address_in_brackets_is_understood() -> None:
    flags = ProcessFlags("[fd00::1]:8476", 2, 1)
    assert (flags.host, flags.port) == ("fd00::1", 8476)
    assert np.isfinite(flags.timeout)
