"""The error for a user's mistake, the wording of its remedy, and the exit statuses of all commands."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_TEMPFAIL = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to go on


class UserError(Exception):
    """A user's mistake, in one line that names the thing and the remedy.

    The command lines print it as ``error: <message>`` and exit with status 2. Library code raises it for everything
    that the user can fix: a wrong field, a missing file, an unreadable picture.
    """


class Failure(Exception):
    """What ends a command though nobody made a mistake, in one line; its status is 1.

    Attributes:
      everywhere: whether it ends all processes of a run alike.
    """

    everywhere = False


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns the remedy for a wrong name: the nearest right one, and all of them if they are few.

    Of many, the first of each kind: names are of one kind if they begin alike up to the first digit or underscore.

    >>> nearest("adam", ["adamw", "sgd"])
    "did you mean 'adamw'? allowed: adamw, sgd"
    >>> nearest("x", [f"net{number}" for number in range(40)] + ["other"])
    'allowed, among 41: net0, other'
    """
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(names) <= 30:
        return f"{hint}allowed: {', '.join(names)}"
    if close:
        return hint.strip()
    kinds: dict[str, str] = {}
    for each in names:
        kinds.setdefault(re.split(r"[\d_]", each, maxsplit=1)[0], each)
    return f"allowed, among {len(names)}: {', '.join(kinds.values())}"


def check(field: str, value: object, holds: bool, allowed: str) -> None:
    """Raises UserError unless a value is what it must be.

    >>> check("depth", 0, False, "1 or more")
    Traceback (most recent call last):
    convnext_jax.errors.UserError: depth=0: must be 1 or more
    """
    if not holds:
        raise UserError(f"{field}={value!r}: must be {allowed}")


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turns an error of the system inside into a UserError that names what cannot be written.

    Args:
      path: what is written.
      option: the option of the command line that chooses another place, such as ``--output``.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({system_reason(error)}); choose another {option}") from error


def system_reason(error: OSError) -> str:
    """Returns the system's word for an error, or the first line of one that is not the system's, as of a cloud.

    >>> system_reason(OSError(13, "Permission denied")), system_reason(OSError("Forbidden: no such bucket"))
    ('Permission denied', 'Forbidden: no such bucket')
    """
    return error.strerror or first_line(error)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error that a library raised, at most 200 characters; its type if it has no text.

    >>> first_line(ValueError("no such array\\nin detail")), first_line(KeyError())
    ('no such array', 'KeyError')
    """
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
