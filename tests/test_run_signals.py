"""Signals ask once, and end a command's own process at once where they may."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import ROOT

from convnext_jax.run.signals import StopSignals


@pytest.fixture(autouse=True)
def handlers_of_a_shell() -> Iterator[None]:
    """Those of Python's own start; what was started in the background or by nohup ignores Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_a_second_one_acts(number: signal.Signals):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_asks_the_contexts_around_too():
    before = signal.getsignal(signal.SIGINT)
    with StopSignals() as outer:
        with StopSignals() as inner:
            pass
        with StopSignals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        assert inner.received == outer.received == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_context_that_begins_after_the_signal_knows_of_it():
    with StopSignals() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as inner:
            assert inner.received == outer.received == "SIGTERM"


# A main thread that does not come to its next instruction for a minute, as while XLA compiles.
BUSY = "import hashlib; print('busy', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"
START = "from convnext_jax.run.signals import StopSignals, end_this_process_at_once; end_this_process_at_once();"
INSIDE = "context = StopSignals().__enter__().at_once(lambda: {}); context.__enter__();"


@pytest.mark.parametrize(
    ("program", "status", "message"),
    [
        (f"{START} {BUSY}", 75, "SIGTERM: nothing new to save; run the same command to go on"),
        (f"{START} {INSIDE.format('str(75)')} {BUSY}", 75,
         "SIGTERM: 75"),
        (f"{START} {INSIDE.format('1 / 0')} {BUSY}", 1,
         "error: SIGTERM, and the state could not be saved: division by zero"),
    ],
    ids=["before the first step", "with a state", "with a state that cannot be saved"],
)  # fmt: skip
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_whose_main_thread_is_busy_ends_at_once(
    program: str, status: int, message: str, number: signal.Signals
):
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        asked = time.monotonic()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (status, message.replace("SIGTERM", number.name))
    assert time.monotonic() - asked < 10


# Python takes a moment to end, in which its own handlers are gone.
SLOW_END = """
from convnext_jax.run.signals import end_this_process_at_once, ignore_signals
import time

class Slow:
    def __del__(self, sleep=time.sleep):
        print("ending", flush=True)
        sleep(1)

end_this_process_at_once()
slow = Slow()
ignore_signals()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_done_is_done(number: signal.Signals):
    with subprocess.Popen([sys.executable, "-c", SLOW_END], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ending\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == 0
