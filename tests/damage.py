"""Files damaged in every way, as strategies of hypothesis."""

import json
from typing import Any

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "None", "nan", "[]", "convnext_tiny", "\x1b[31m", "../..", "\ud800"]),
)
# What any tool may put in the place of a value.
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=10), inner, max_size=3),
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content of a file after one to four damages."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(1, 64)))
        kind = draw(st.sampled_from(["truncate", "flip", "insert", "delete", "replace", "random"]))
        some = draw(st.binary(min_size=1, max_size=64))
        if kind == "truncate":
            content = content[:start]
        elif kind == "flip" and start < len(content):
            flipped = content[start] ^ (1 << draw(st.integers(0, 7)))
            content = content[:start] + bytes([flipped]) + content[start + 1 :]
        elif kind == "insert":
            content = content[:start] + some + content[start:]
        elif kind == "delete":
            content = content[:start] + content[stop:]
        elif kind == "replace":
            content = content[:start] + some + content[start + len(some) :]
        elif draw(st.integers(0, 9)) == 0:
            content = some
    return content


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


@st.composite
def swapped(draw: st.DrawFn, content: Any) -> Any:
    """A JSON value with one to three of its parts exchanged for others, or taken out."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(_places(content)[1:] or [(None,)]))
        if last is None:
            return draw(VALUES)
        part = content
        for key in path:
            part = part[key]
        if isinstance(part, dict) and draw(st.booleans()):
            del part[last]
        else:
            part[last] = draw(VALUES)
    return content


@st.composite
def damaged_json(draw: st.DrawFn, content: dict[str, Any]) -> bytes:
    """The text of a JSON file with damaged values, or damaged bytes."""
    if draw(st.booleans()):
        return draw(damaged(json.dumps(content).encode()))
    text = json.dumps(draw(swapped(content)), default=str)
    return text.encode()
