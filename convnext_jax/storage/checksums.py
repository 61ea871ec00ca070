"""Checksums of the files of a folder, and of a single JSON file, so that nothing damaged is believed."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, system_reason
from convnext_jax.storage.cloud import files_below
from convnext_jax.storage.files import parse_json, write_json

_NAME = "checksums.json"


def write_checksums(folder: Path, *, leave_out: Collection[str] = ()) -> None:
    """Writes ``checksums.json``: the SHA-256 of every file that the folder holds now, at any depth.

    Args:
      folder: the folder.
      leave_out: names of files that are still to change.
    """
    names = [name for name in files_below(folder) if Path(name).name not in (_NAME, *leave_out)]
    write_json(folder / _NAME, {"sha256": {name: _digest(folder / name) for name in names}})


def damage(folder: Path) -> str | None:
    """Returns what is wrong with a folder's files, None if nothing is or if it has no checksums.

    A file that has no checksum does no harm.

    Raises:
      UserError: a file may not be read, which says nothing about what it holds.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        recorded = parse_json(path.read_bytes())["sha256"]
        if not recorded:
            return f"{_NAME} records nothing"
        for name, digest in recorded.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _digest(folder / name) != digest:
                return f"{name} has other content than was written"
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be read ({system_reason(error)}); let this user read it") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{_NAME} cannot be used ({type(error).__name__})"
    return None


def has_checksums(folder: Path) -> bool:
    """Returns whether a folder's files can be verified."""
    return (folder / _NAME).exists()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a JSON file with its own checksum.

    >>> content = sealed({"a": 1})
    >>> unsealed(json.dumps(content))
    {'a': 1}
    >>> unsealed(json.dumps(content | {"a": 2}))
    Traceback (most recent call last):
    ValueError: it was changed or damaged; if you changed it on purpose, delete its checksum
    """
    return {**content, "checksum": _content_digest(content)}


def unsealed(text: str) -> dict[str, Any]:
    """Returns the content of a JSON file without its checksum.

    Raises:
      ValueError: it is no JSON object, or it does not have the checksum that it should have. Without one it is taken as
        it is, since version 0.1 wrote none.
    """
    content = parse_json(text.removeprefix("\ufeff"))  # the mark that some editors put first
    if not isinstance(content, dict):
        raise ValueError("it holds no settings")
    checksum = content.pop("checksum", None)
    if checksum is not None and checksum != _content_digest(content):
        raise ValueError("it was changed or damaged; if you changed it on purpose, delete its checksum")
    return content


def _content_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
