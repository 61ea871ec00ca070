"""The processes of one run: what they tell each other, and how they end together.

JAX's runtime carries the arrays. What it does not do is here: a process that is missing, or that was started with
another configuration, is named before anything waits for it, and if one dies, the others end with status 75 instead of
waiting for it forever. Process 0, the lead, listens on a port of its own. Every other process keeps one connection to
it, on which both sides show every few seconds that they are alive.
"""

import contextlib
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from convnext_jax.errors import EXIT_TEMPFAIL, Failure, UserError, system_reason

SILENCE = 40.0  # seconds after which a process that says nothing is taken for dead
_HEARTBEAT = 5.0
_GRACE = 5.0  # seconds that an error waits for the news that another process is the reason
_ENDED = {"ended": True}


class Peers:
    """All processes of a run, seen from one of them. It is a context; a process that leaves it without error is done.

    Every process makes the same calls in the same order.

    Attributes:
      index: number of this process, from 0.
      count: how many there are.
    """

    index, count = 0, 1
    _refused = False  # by an error that all processes have

    @property
    def lead(self) -> bool:
        """Whether this is process 0, which prints and writes what all have in common."""
        return self.index == 0

    def gather(self, value: Any) -> list[Any]:
        """Returns the values that the processes gave, in their order; each can be written as JSON."""
        return [value]

    def of_lead(self, value: Any) -> Any:
        """Returns the value that the lead gave."""
        return self.gather(value)[0]

    def first_of(self, value: Any) -> Any:
        """Returns the first value that is not None, None if all are."""
        return next((each for each in self.gather(value) if each is not None), None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Raises the UserError of any process in all of them. None leaves before all have come to the end."""
        try:
            yield
        except UserError as error:
            self._refused = True
            self.gather(str(error))
            raise
        for index, message in enumerate(self.gather(None)):
            if message is not None:
                self._refused = True
                raise UserError(f"process {index}: {message}")

    def check_same(self, values: Mapping[str, Any]) -> None:
        """Raises UserError in all processes if a value differs, with the names of what differs and both values.

        Args:
          values: what to compare, by its name in the message.
        """
        everyone = self.gather(dict(values))
        for index, theirs in enumerate(everyone):
            names = [name for name in {**everyone[0], **theirs} if everyone[0].get(name) != theirs.get(name)]
            if names:
                self._refused = True
                raise UserError(
                    "the processes differ: "
                    + "; ".join(
                        f"{name}: {everyone[0].get(name)!r} in process 0, {theirs.get(name)!r} in process {index}"
                        for name in names
                    )
                )

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


ALONE = Peers()


class ConnectedPeers(Peers):
    """Processes that are connected to the lead.

    Args:
      index: number of this process.
      connections: to the others if this is the lead, in their order; otherwise the one to the lead.
    """

    def __init__(self, index: int, count: int, connections: Sequence["_Connection"]) -> None:
        self.index, self.count = index, count
        self._connections = connections
        for connection in connections:
            connection.watch(self._end_with)

    def gather(self, value: Any) -> list[Any]:
        """See `Peers.gather`."""
        if not self.lead:
            (lead,) = self._connections
            lead.send(value)
            return lead.receive()
        value = json.loads(json.dumps(value))  # as the others see it
        values = [value, *(connection.receive() for connection in self._connections)]
        for connection in self._connections:
            connection.send(values)
        return values

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        as_the_others = error is None or isinstance(error, SystemExit) or self._refused
        as_the_others = as_the_others or isinstance(error, Failure) and error.everywhere
        if not as_the_others:
            time.sleep(_GRACE)  # if another process died, that is the reason, and this one ends in a moment
        for connection in self._connections:
            connection.end(without_error=as_the_others)

    def _end_with(self, connection: "_Connection") -> None:
        """Ends this process, since another one is gone. What was saved last is what all go on from."""
        print(
            f"process {connection.index} on {connection.host} is gone, and with it this run; run the same command in"
            " every process to go on",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_TEMPFAIL)  # without waiting for XLA, which waits for the other process


class _Connection:
    """A connection to another process: messages, each a line of JSON, and empty lines as signs of life."""

    def __init__(self, connected: socket.socket, host: str, index: int) -> None:
        self.index = index
        self.host = host
        self._socket, self._sending = connected, threading.Lock()
        self._file = connected.makefile("rb")
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._lost: Callable[[_Connection], None] | None = None  # set once another thread receives

    def settimeout(self, seconds: float) -> None:
        """Sets how long a silence is borne."""
        self._socket.settimeout(seconds)

    def read(self) -> Any:
        """Returns the next message, in this thread; for before `watch`."""
        while (line := self._file.readline()) == b"\n":
            pass
        if not line:
            raise ConnectionError("the connection was closed")
        return json.loads(line)

    def send(self, message: Any) -> None:
        """Sends a message. Whether it arrives, the thread that receives will know."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Any:
        """Waits for the next message."""
        message = self._received.get()
        if message == _ENDED and self._lost is not None:
            self._lost(self)  # it ended too early
        return message

    def watch(self, lost: Callable[["_Connection"], None]) -> None:
        """Begins to receive, and calls ``lost(self)`` if the process at the other end is gone before it said so."""
        self.settimeout(SILENCE)
        self._lost = lost
        threading.Thread(target=self._receive_all, name="peers", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def end(self, *, without_error: bool) -> None:
        """Closes the connection; the other process knows whether this one ended as it should."""
        self._ended.set()
        if without_error:
            self.send(_ENDED)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        if self._lost is None:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            self._socket.close()

    def _receive_all(self) -> None:
        message = None
        with contextlib.suppress(OSError, ValueError):  # ValueError: not JSON, cut off
            while message != _ENDED:
                message = self.read()
                self._received.put(message)
        self._close()
        if message != _ENDED and not self._ended.is_set() and self._lost is not None:
            self._lost(self)

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT):
            with self._sending, contextlib.suppress(OSError):
                self._socket.sendall(b"\n")


def listen(port: int) -> socket.socket:
    """Returns a socket that listens on a port of this host, 0 for any free one.

    Raises:
      UserError: the port cannot be used.
    """
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6)
    except OSError as error:
        raise UserError(f"port {port} cannot be used on this host ({system_reason(error)}); take another") from error


def gather_at_lead(listening: socket.socket, count: int, versions: Any, timeout: float) -> Peers:
    """Waits for all other processes, as the lead.

    Args:
      listening: what `listen` returned.
      count: how many processes there are.
      versions: of what all must have the same version of.
      timeout: seconds to wait.

    Raises:
      UserError: some did not come, or do not belong. Those that did come are told why.
    """
    found: dict[int, _Connection] = {}
    deadline = time.monotonic() + timeout
    with listening:
        while len(found) < count - 1:
            listening.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connected, address = listening.accept()
            except TimeoutError:
                missing = ", ".join(str(index) for index in range(1, count) if index not in found)
                problem = f"of {count} processes number {missing} did not come within {timeout:.0f} s"
                _refuse(found.values(), problem)
                raise UserError(f"{problem}; start it with --process_id and the same --coordinator") from None
            connection = _Connection(connected, address[0], 0)
            hello = _hello(connection)
            if hello is None:  # whatever else connects to ports
                connection.end(without_error=False)
                continue
            connection.index = hello["process"]
            if problem := _problem(hello, count, versions, found):
                _refuse([*found.values(), connection], problem)
                raise UserError(problem)
            found[connection.index] = connection
    connections = [found[index] for index in range(1, count)]
    for connection in connections:
        connection.send({"welcome": count})
    return ConnectedPeers(0, count, connections)


def _hello(connection: _Connection) -> dict[str, Any] | None:
    """Returns what a process says first, None if it says something else."""
    connection.settimeout(10.0)
    try:
        hello = connection.read()
    except (OSError, ValueError):
        return None
    return hello if isinstance(hello, dict) and {"process", "of", "versions"} <= set(hello) else None


def _problem(hello: dict[str, Any], count: int, versions: Any, found: dict[int, _Connection]) -> str | None:
    """Returns why a process does not belong to the others, None if it does."""
    index = hello["process"]
    if hello["of"] != count:
        return f"--num_processes={count} in process 0, {hello['of']} in process {index}"
    if index in found or index == 0:
        return f"--process_id={index} was given to two processes"
    if hello["versions"] != versions:
        return f"process 0 has {_text(versions)}, process {index} {_text(hello['versions'])}; install the same"
    return None


def _text(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _refuse(connections: Iterable[_Connection], problem: str) -> None:
    for connection in connections:
        connection.send({"error": problem})
        connection.end(without_error=False)


def join_lead(hosts: Sequence[str], port: int, index: int, count: int, versions: Any, timeout: float) -> Peers:
    """Connects to the lead, and waits until all processes have.

    Args:
      hosts: names or addresses of the lead's host; the first that answers is taken.
      port: its port.
      index: number of this process.
      count: how many there are.
      versions: of what all must have the same version of.
      timeout: seconds to wait for the lead.

    Raises:
      UserError: the lead does not answer, or refuses.
    """
    connected, host = _connect(hosts, port, timeout)
    connection = _Connection(connected, host, 0)
    connection.settimeout(timeout + SILENCE)  # the lead waits as long for the others
    connection.send({"process": index, "of": count, "versions": versions})
    try:
        answer = connection.read()
    except (OSError, ValueError) as error:
        connection.end(without_error=False)
        raise UserError(f"process 0 on {hosts[0]} ended while this one waited; see its own message") from error
    if "error" in answer:
        connection.end(without_error=False)
        raise UserError(f"process 0: {answer['error']}")
    return ConnectedPeers(index, count, [connection])


def _connect(hosts: Sequence[str], port: int, timeout: float) -> tuple[socket.socket, str]:
    """Returns a connection, and the host at its other end."""
    deadline, reason = time.monotonic() + timeout, ""
    while time.monotonic() < deadline:
        for host in hosts:
            try:
                return socket.create_connection((host, port), timeout=5.0), host
            except OSError as error:
                reason = system_reason(error)
        time.sleep(0.2)
    raise UserError(
        f"--coordinator {hosts[0]}:{port} could not be reached within {timeout:.0f} s ({reason}); is process 0 started"
        " there, and is the port open?"
    )
