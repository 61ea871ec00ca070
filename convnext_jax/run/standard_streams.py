"""Standard streams that a command was started without, or that nobody reads anymore.

``train.py --print_config | head -1`` closes a pipe while the command still prints. The convention is to end without a
word, with the status that a shell shows for SIGPIPE.

Imports nothing slow, so that a command can look after its streams before it imports anything else.
"""

import os
import select
import signal
import sys

from convnext_jax.errors import EXIT_FAILURE, system_reason

EXIT_READER_GONE = 128 + signal.SIGPIPE

_NAMES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def open_closed_streams() -> None:
    """Opens the null device in the place of each standard stream that is closed, as after ``>&-``.

    Otherwise the next file that is opened has its number, and what a library prints goes into that file.
    """
    for name, mode in _NAMES.items():
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # it gets the lowest free number: its own
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def reader_is_gone() -> bool:
    """Returns whether stdout or stderr is a pipe that nobody reads anymore."""
    return any(map(_is_broken, (1, 2)))


def finish_streams(status: int) -> int:
    """Writes what is still buffered and returns the exit status.

    Args:
      status: the status if all could be written. One that is not 0 stays.

    Returns:
      `EXIT_READER_GONE` if nobody reads, and 1, after a line on stderr, if the output cannot be written for another
      reason, such as a full disk.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            # Python flushes once more while it ends, and would report a failure then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if isinstance(error, BrokenPipeError):
                status = status or EXIT_READER_GONE
            else:
                print(f"error: the output cannot be written ({system_reason(error)})", file=sys.stderr)
                status = status or EXIT_FAILURE
    return status


def _is_broken(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
