"""Nothing is unpickled while code that is not ours reads files that others made: a pickle may run any code."""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Iterator
from typing import Any

from convnext_jax.errors import UserError

_reader: contextvars.ContextVar[str] = contextvars.ContextVar("reader", default="")


@contextlib.contextmanager
def no_pickle(reader: str) -> Iterator[None]:
    """Within the context, an unpickler that looks for a class or a function gets a UserError.

    Without one, it makes nothing but numbers, texts and containers.

    Args:
      reader: whose code runs in the context, for the message.
    """
    _add_hook()
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


@functools.cache
def _add_hook() -> None:
    sys.addaudithook(_refuse)  # for good, so it is added once


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and (reader := _reader.get()):
        name = ".".join(map(str, arguments))
        raise UserError(f"{reader} reads a pickle ({name!r:.80}), which may run any code: prepare the data elsewhere")
