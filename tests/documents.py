"""The documents, and what they consist of."""

import re
from pathlib import Path

from conftest import ROOT

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/api").glob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
    ]
)
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(document: Path) -> str:
    """The path from the root of the repository, for the name of a test."""
    return document.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the content of each block of code, in order."""
    return _BLOCK.findall(text)


def without_blocks(text: str) -> str:
    """The text between the blocks of code."""
    return _BLOCK.sub("", text)
