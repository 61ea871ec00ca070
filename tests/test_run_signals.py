"""Signals ask once."""

import os
import signal
from collections.abc import Iterator

import pytest

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
