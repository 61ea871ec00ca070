"""What groups of runs are called: by the folders they lie in, and by the settings in which they differ."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the fields in which groups differ; those that all of them have come first.

    >>> differing_settings([{"optim.b1": 0.9, "run.epochs": 5}, {"optim.b1": 0.9, "run.epochs": 8}])
    ['run.epochs']

    Args:
      settings: those of each group, ``{"section.field": value}``.
    """
    names = dict.fromkeys(name for each in settings for name in each)
    differing = [name for name in names if len({repr(each.get(name)) for each in settings}) > 1]
    return sorted(differing, key=lambda name: not all(name in each for each in settings))


def short_fields(names: Sequence[str]) -> list[str]:
    """Returns fields without their sections, except ``name`` and what two sections have.

    >>> short_fields(["model.name", "optim.learning_rate"])
    ['model.name', 'learning_rate']
    """
    leaves = Counter(name.rpartition(".")[2] for name in names)
    return [name if leaves[leaf := name.rpartition(".")[2]] > 1 or leaf == "name" else leaf for name in names]


def setting_text(value: object) -> str:
    """Returns the value of a field as a cell of a table.

    >>> setting_text((2, 2, 6, 2)), setting_text(0.00100), setting_text(None)
    ('2, 2, 6, 2', '0.001', 'none')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting_text, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def group_names(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Returns the shortest name for each group that tells it from the others.

    >>> group_names([[Path("runs/wide")], [Path("runs/deep/seed_0"), Path("runs/deep/seed_1")]])
    ['wide', 'deep']

    Args:
      groups: the workdirs of each group.
    """
    shorts = _short_paths(_named_folders(groups))
    # Of seeds in folders side by side, ``c100-seed0`` and ``c100-seed1``, what their names have in common.
    common = [re.sub(r"[\W_]*([\W_]s(eed)?)?[\W_]*$", "", os.path.commonprefix(names)) for names in shorts]
    taken = Counter(common)
    return [
        names[0]
        if len(names) == 1
        else (short if short and taken[short] == 1 else f"{names[0]} and {len(names) - 1} more")
        for names, short in zip(shorts, common, strict=True)
    ]


def _named_folders(groups: Sequence[Sequence[Path]]) -> list[list[str]]:
    """Returns the folders that name each group: those of its runs, or the one that its ``seed_<n>`` lie in."""
    parents = [{os.path.dirname(os.path.abspath(workdir)) for workdir in group} for group in groups]
    owners = Counter(parent for each in parents for parent in each)

    def named(folder: str) -> str:
        parent, name = os.path.split(folder)
        return parent if re.fullmatch(r"seed_\d+", name) and owners[parent] == 1 else folder

    return [list(dict.fromkeys(named(os.path.abspath(workdir)) for workdir in group)) for group in groups]


def _short_paths(groups: Sequence[Sequence[str]]) -> list[list[str]]:
    """Returns as many of the last parts of all paths as tell those of different groups apart."""
    parts = [[path.split("/") for path in group] for group in groups]
    for depth in range(1, max((len(each) for group in parts for each in group), default=0) + 1):
        names = [["/".join(each[-depth:]) for each in group] for group in parts]
        if max(Counter(name for group in names for name in set(group)).values()) == 1:
            return names
    return [list(group) for group in groups]
