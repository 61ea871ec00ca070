"""The configs and sweeps that come with the package, so that ``--config digits`` works in any folder."""

from pathlib import Path

from convnext_jax.errors import UserError, nearest

_PACKAGE = Path(__file__).parents[1]


def shipped_folder(kind: str) -> Path:
    """Returns the folder of the files that come with the package.

    Args:
      kind: ``configs`` or ``sweeps``. An installed package has them inside, a checkout beside it.
    """
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def shipped_names(kind: str) -> list[str]:
    """Returns the names of the files that come with the package: ``digits``, ``papers/road``.

    Args:
      kind: ``configs`` or ``sweeps``.
    """
    folder = shipped_folder(kind)
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py"))


def find_file(path: Path, kind: str) -> Path:
    """Returns the Python file that a path or a name means. A file that exists always wins.

    >>> find_file(Path("papers/road"), "configs").name
    'road.py'

    Args:
      path: a file, or one that comes with the package: ``digits``, ``digits.py`` or ``configs/digits.py``.
      kind: ``configs`` or ``sweeps``.

    Raises:
      UserError: there is neither. The message has the nearest name, or lists the Python files beside it.
    """
    if path.is_file():
        return path
    name = path.as_posix().removeprefix(f"{kind}/").removesuffix(".py")
    names = shipped_names(kind)
    if name in names:
        return shipped_folder(kind) / f"{name}.py"
    beside = ", ".join(sorted(map(str, path.parent.glob("*.py"))))
    if path.suffix == ".py" and beside:
        raise UserError(f"there is no file {path}; {path.parent} holds {beside}")
    raise UserError(f"there is no file {path}, and none of that name comes with the package; {nearest(name, names)}")
