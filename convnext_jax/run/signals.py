"""Signals that ask a run to stop: a preemption's SIGTERM and the user's Ctrl-C."""

import signal
from types import FrameType, TracebackType


class StopSignals:
    """A context in which SIGTERM and the first Ctrl-C only ask to stop. A second signal acts as it does by default.

    Inside another such context a signal asks both.

    Attributes:
      received: the name of the signal that asked, None until one has.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        outer = signal.getsignal(number)
        if isinstance(getattr(outer, "__self__", None), StopSignals) and callable(outer):
            outer(number, frame)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
