"""Extension of griffe: what docstrings have that Markdown does not."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)  # up to the next empty line
ROLE = re.compile(r":\w+:(?=`)")  # of Sphinx, as in :func:`train`


class Docstrings(griffe.Extension):
    """Puts fences around examples, which Markdown would take for quotations, and leaves out roles."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object that was loaded."""
        del kwargs
        if obj.docstring is not None:
            text = EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", obj.docstring.value)
            obj.docstring.value = ROLE.sub("", text)
