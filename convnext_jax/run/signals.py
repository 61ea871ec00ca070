"""Signals that ask a run to stop: a preemption's SIGTERM and the user's Ctrl-C.

Python calls a handler in the main thread, between two of its instructions. While XLA compiles or a device computes, the
main thread may not come to the next one for minutes. But the interpreter also writes the number of each signal to a
pipe at once, and a second thread here reads it. Where the state is complete, that thread saves it and ends the process.

Imports nothing slow, so that train.py can answer signals before it imports anything else.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType

from convnext_jax.errors import EXIT_FAILURE, EXIT_TEMPFAIL

Action = Callable[[], str]

NOTHING_NEW = "nothing new to save; run the same command to go on"

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_contexts: list["StopSignals"] = []
_previous: dict[signal.Signals, object] = {}
_may_exit = False  # whether this process is a command's own
_ending = threading.Lock()  # held while the process is ended, and while an action is set


class StopSignals:
    """A context in which SIGTERM and the first Ctrl-C only ask to stop. A second signal acts as it does by default.

    Inside another such context a signal asks both.

    Attributes:
      received: the name of the signal that asked, None until one has.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._action: Action | None = None

    def __enter__(self) -> "StopSignals":
        if _contexts:
            self.received = _contexts[-1].received
        else:
            for number in _SIGNALS:
                _previous[number] = signal.signal(number, _ask)
        _contexts.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _contexts.remove(self)
        if not _contexts:
            _restore()

    @contextlib.contextmanager
    def at_once(self, action: Action) -> Iterator[None]:
        """Ends the process with status 75 as soon as a signal comes, whatever the main thread is doing.

        Only in a command's own process, see `end_this_process_at_once`. In any other this context does nothing.

        Args:
          action: called before the process ends, in another thread. It makes everything safe, and returns what to print
            after the name of the signal.
        """
        self._set(action)
        try:
            yield
        finally:
            self._set(None)

    def _set(self, action: Action | None) -> None:
        with _ending:
            self._action = action
        if self.received and action:  # it came just before
            _end(self.received)


def end_this_process_at_once() -> None:
    """Says that this process belongs to a command, so a signal may end it. From here on one does, with status 75."""
    global _may_exit
    _may_exit = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
    StopSignals().__enter__()._set(lambda: NOTHING_NEW)


def ignore_signals() -> None:
    """Says that all is done: a signal that comes while Python takes itself down changes the status no more."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _ask(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    for context in _contexts:
        context.received = name
    _restore()
    _end(name)


def _restore() -> None:
    for number, handler in _previous.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
    _previous.clear()


def _watch(pipe: int) -> None:
    while numbers := os.read(pipe, 1):
        if numbers[0] in _SIGNALS:
            _end(signal.Signals(numbers[0]).name)


def _end(name: str) -> None:
    """Ends the process if the innermost context has an action for that. Returns if it has none."""
    # Another thread that holds the lock is ending the process, or is about to look whether a signal came.
    if not _may_exit or not _ending.acquire(blocking=False):
        return
    try:
        action = _contexts[-1]._action if _contexts else None
        if action is not None:
            status = EXIT_TEMPFAIL
            try:
                message = f"{name}: {action()}"
            except BaseException as error:
                status, message = EXIT_FAILURE, f"error: {name}, and the state could not be saved: {error}"
            print(message, file=sys.stderr, flush=True)
            _end_children()
            os._exit(status)  # without waiting for XLA
    finally:
        _ending.release()


def _end_children() -> None:
    """Kills what decodes images for this process. It would wait for more of them forever."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()
