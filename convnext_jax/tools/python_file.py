"""Python files that a user wrote: configurations and sweeps. What goes wrong in one is said with its line."""

import contextlib
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError, first_line


@contextlib.contextmanager
def running(file: Path) -> Iterator[None]:
    """Runs code of a user's file inside: it can import the modules beside it, as ``python FILE`` could.

    Args:
      file: the file.

    Raises:
      UserError: whatever the code raised, with the line of the file.
    """
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"{file}{_line_of(file, error)}: {_reason(error)}") from error
    finally:
        with contextlib.suppress(ValueError):  # the code may have changed the list, too
            sys.path.remove(folder)


def run_file(file: Path) -> Mapping[str, Any]:
    """Runs a file and returns what it defines; see `running` for the errors."""
    with running(file):
        return runpy.run_path(str(file))


def read_config_file(path: str) -> config_dict.ConfigDict:
    """Returns what ``get_config()`` of a file returns, with every field that it left out at its default.

    Args:
      path: the file, or ``file.py:argument`` for ``get_config(argument)``.

    Raises:
      UserError: there is no such function, it returns something else, or the file's code raised an error.
    """
    name, colon, argument = path.partition(":")
    file = Path(name)
    get_config = run_file(file).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file} has no function get_config(), which returns the configuration; see configs/digits.py")
    with running(file):
        given: Any = get_config(argument) if colon else get_config()
        if not isinstance(given, config_dict.ConfigDict | Mapping):
            raise UserError(
                f"{file}: get_config() returns {given!r:.80}; it must return the changed default_config(), see"
                " configs/digits.py"
            )
        config = default_config()
        config.update(given.to_dict() if isinstance(given, config_dict.ConfigDict) else given)
        return config


def _line_of(file: Path, error: BaseException) -> str:
    """Returns the last line of the file that the error passed through; nothing if it passed through none."""
    numbers = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f", line {numbers[-1]}" if numbers else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, AttributeError | KeyError) and error.args:
        # A locked ConfigDict names the field that does not exist, and the nearest one that does.
        return str(error.args[0])
    return f"{type(error).__name__}: {first_line(error)}"
