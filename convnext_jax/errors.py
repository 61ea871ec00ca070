"""What a user's mistake raises, and how its message finds the remedy."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's, told in one line that names the thing and the remedy.

    The command lines print it as ``error: <message>`` and exit with status 2; library code raises it for
    everything that the user can put right: a wrong field, a missing file, an unusable picture.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The remedy for a wrong name: the nearest right one, and all of them where they are few.

    >>> nearest("adam", ["adamw", "sgd"])
    "did you mean 'adamw'? allowed: adamw, sgd"
    """
    names = list(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}" if len(names) <= 30 or not close else hint.strip()
