"""Processes that decode pictures, any of them, in the order that they are asked for."""

import contextlib
import multiprocessing
import signal
import weakref
from collections import deque
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NoReturn

import numpy as np

from convnext_jax.data.decode_split import usable_cores, without_main_module
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.random_crop import RandomCrop
from convnext_jax.errors import Failure, UserError, first_line

_PICTURES = 64  # at most, of a task: some milliseconds of work
_TASKS = 2  # that a process has at a time, so that it need not wait for the next
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DecodingProcesses:
    """Decodes pictures in processes of their own, which start when the first are asked for.

    Each has a connection to this process and shares nothing with the others. If either side dies, even in the middle
    of a message, the other sees the end of the connection. So nobody waits forever, and no process stays behind. Not
    Grain 0.2.18: there the reader of a process that is killed while it sends waits forever, and to go on from another
    step took ten seconds on two cores, since each process starts again and imports JAX.

    Args:
      images: the pictures.
      count: how many processes; None is one for each core.
      crop: draws a rectangle of each picture; None takes them whole, as `EncodedImages` has them.
    """

    def __init__(self, images: EncodedImages, count: int | None = None, crop: RandomCrop | None = None) -> None:
        self._images, self._crop = images, crop
        self._count = count or usable_cores()
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._end = weakref.finalize(self, _end, self._processes, self._connections)  # and when Python ends

    def read(self, epoch: int, indices: np.ndarray, out: np.ndarray) -> None:
        """Decodes pictures. One thread at a time may ask.

        Args:
          epoch: that they are needed in, for the crops.
          indices: which, each in [0, N), of any shape [...].
          out: where to, uint8 [...,H W C], contiguous.

        Raises:
          UserError: a picture cannot be read.
          Failure: a process died, or `close` was called.
        """
        if not self._end.alive:
            raise Failure("the processes that decode pictures have been ended")
        if not self._processes:
            self._start()
        indices, rows = indices.reshape(-1), out.reshape(indices.size, -1)
        starts = deque(range(0, len(indices), _PICTURES))
        waiting: deque[tuple[int, int]] = deque()  # which process, and where its result begins
        while starts or waiting:
            # In turn: the next task is for the process whose result comes next.
            while starts and len(waiting) < _TASKS * self._count:
                number = (starts[0] // _PICTURES) % self._count
                self._send(number, epoch, indices[starts[0] : starts[0] + _PICTURES])
                waiting.append((number, starts.popleft()))
            number, start = waiting.popleft()
            self._receive(number, rows[start : start + _PICTURES])

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with JAX's threads may hang
        resource_tracker.ensure_running()  # which would let the signals through
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # inherited: only this process is to stop
        try:
            with without_main_module():
                for _ in range(self._count):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_serve, args=(theirs, self._images, self._crop), daemon=True)
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._connections.append(ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _send(self, number: int, epoch: int, indices: np.ndarray) -> None:
        try:
            self._connections[number].send((epoch, indices.tolist()))
        except OSError:
            self._died(number)

    def _receive(self, number: int, rows: np.ndarray) -> None:
        connection = self._connections[number]
        try:
            problem = connection.recv()
            if problem is None:
                connection.recv_bytes_into(rows.data.cast("B"))
                return
        except (EOFError, OSError):
            self._died(number)
        self.close()
        kind, text = problem
        raise (UserError if kind == "user" else Failure)(text)

    def _died(self, number: int) -> NoReturn:
        if not self._end.alive:
            raise Failure("the processes that decode pictures have been ended")
        process = self._processes[number]
        process.join(5)
        status = process.exitcode
        self.close()
        how = "without a word" if status is None else f"by signal {-status}" if status < 0 else f"with status {status}"
        raise Failure(
            f"a process that decodes pictures ended {how}, perhaps for lack of memory; run the same command to go on"
        )

    def close(self) -> None:
        """Ends the processes. Another thread that waits for them gets a Failure."""
        self._end()


def _end(processes: Sequence[BaseProcess], connections: Sequence[Connection]) -> None:
    for process in processes:
        process.kill()  # what it does is of no use any more
    for process in processes:
        process.join()
    for connection in connections:
        connection.close()


def _serve(connection: Connection, images: EncodedImages, crop: RandomCrop | None) -> None:
    """Decodes what it is asked for, until the other side is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            epoch, indices = connection.recv()
            try:
                rows = images[np.asarray(indices)] if crop is None else images.crops(indices, crop, epoch)
            except UserError as error:
                connection.send(("user", str(error)))
                continue
            except Exception as error:
                connection.send(("other", f"pictures cannot be decoded: {type(error).__name__}: {first_line(error)}"))
                continue
            connection.send(None)
            connection.send_bytes(rows.data.cast("B"))
