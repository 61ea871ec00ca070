"""Folders in a bucket, ``gs://bucket/folder``: which paths they are, and what they cannot do as a disk does.

A path in a bucket is an ``epath.Path``, which reads, writes and lists as those of pathlib do. Orbax and TensorStore
save checkpoints there. Everything that must know of buckets asks here.
"""

import hashlib
import importlib.util
import json
import logging
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any, cast

from convnext_jax.errors import UserError, first_line

_PACKAGE = "gcsfs"
_PATIENCE = 10.0  # seconds
_AT_ONCE = 64  # files copied side by side
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://?(.*)", re.IGNORECASE)


log = logging.getLogger(__name__)


def to_path(text: str | Path) -> Path:
    """Returns a path on the disk or, for ``gs://bucket/folder``, in a bucket.

    >>> to_path("runs/c100")
    PosixPath('runs/c100')

    Raises:
      UserError: another scheme, no bucket or one that cannot be reached, or the package that buckets need is not
        installed.
    """
    if isinstance(text, Path):
        return text
    match = _SCHEME.fullmatch(text)
    if match is None:
        return Path(text)
    scheme, rest = match[1].lower(), match[2].lstrip("/")
    if scheme != "gs":
        raise UserError(
            f"{text}: folders of {scheme}:// are not supported (Orbax writes no checkpoints there); take gs:// or a"
            " folder on the disk"
        )
    if not rest:
        raise UserError(f"{text}: which bucket? It reads gs://bucket/folder")
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UserError(f"{text}: folders in a bucket need a package that is not installed; pip install {_PACKAGE}")
    _set_up()
    from etils import epath

    path = cast(Path, epath.Path(f"gs://{rest}"))
    _check_reachable(path)
    return path


def local_path(text: str, name: str = "") -> Path:
    """Returns a path on the disk; raises UserError for one in a bucket. The message has the name before the path."""
    if _SCHEME.fullmatch(text):
        raise UserError(f"{name}{text}: this must be on the disk, not in a bucket")
    return Path(text)


def is_cloud(path: Path) -> bool:
    """Returns whether a path is in a bucket."""
    return str(path).startswith("gs://")


def files_below(folder: Path) -> list[str]:
    """Returns the files of a folder at any depth, relative to it, in order."""
    if is_cloud(folder):
        return sorted(_objects(folder))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def move(path: Path, target: Path, *, last: str = "") -> None:
    """Renames a folder. In a bucket its objects are copied and deleted; the folder above the target need not exist.

    Args:
      path: the folder.
      target: what it is to be.
      last: the file that says that the folder is complete. In a bucket it is moved last, so that after a kill the
        folder that is left still counts, and can be moved again.
    """
    if is_cloud(path):
        for name in sorted(files_below(path), key=lambda name: name == last):
            _file_system().mv(str(path / name), str(target / name))
    else:
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


def modified_at(path: Path) -> float:
    """Returns when an object in a bucket was written, in seconds, by the bucket's clock."""
    stat: Any = path.stat()
    return stat.mtime


def free_bytes(folder: Path) -> int | None:
    """Returns how much more a disk holds; None for a bucket, or if the folder cannot be asked."""
    try:
        return None if is_cloud(folder) else shutil.disk_usage(folder).free
    except OSError:
        return None


def local_copy(folder: Path, cache: Path, *, only: str = "") -> Path:
    """Returns the folder itself or, of one in a bucket, a copy on the disk, which is brought up to date.

    A file whose object has changed is copied again, and one whose object is gone is deleted.

    Args:
      folder: the folder.
      cache: where copies are kept.
      only: a folder in it that is enough.

    Raises:
      UserError: the bucket or the folder does not exist, or may not be read.
    """
    if not is_cloud(folder):
        return folder
    root, folder = folder, folder / only
    copies = cache / hashlib.sha256(str(root).encode()).hexdigest()[:16]
    try:
        objects = _objects(folder)
    except Exception as error:  # whatever the bucket's library raises
        raise UserError(f"{folder} cannot be read ({first_line(error)})") from error
    if not objects:
        raise UserError(f"there is nothing in {folder}")
    versions = {name: str(info.get("etag") or info.get("updated")) for name, info in objects.items()}
    _bring_up_to_date(copies / only, versions, folder)
    return copies


def _objects(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what a bucket says of each object below a folder, by its name relative to that."""
    prefix = str(folder).removeprefix("gs://").rstrip("/") + "/"
    found = _file_system().find(str(folder), detail=True)
    return {name.removeprefix(prefix): info for name, info in found.items() if not name.endswith("/")}


def _bring_up_to_date(copy: Path, versions: dict[str, str], folder: Path) -> None:
    record = copy.with_name(f"{copy.name}.versions.json")  # of each object that the copy has
    try:
        there = {name: version for name, version in json.loads(record.read_text()).items() if (copy / name).exists()}
    except (OSError, ValueError, AttributeError):
        there = {}
    for name in files_below(copy) if copy.is_dir() else ():
        if name not in versions:
            (copy / name).unlink()
    lacking = [name for name, version in versions.items() if there.get(name) != version]
    if lacking:
        log.warning("copying %d files from %s to %s", len(lacking), folder, copy)
    try:
        for start in range(0, len(lacking), _AT_ONCE):
            names = lacking[start : start + _AT_ONCE]
            for name in names:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
            _file_system().get([str(folder / name) for name in names], [str(copy / name) for name in names])
            there |= {name: versions[name] for name in names}
    except Exception as error:  # whatever the bucket's library raises
        raise UserError(f"{folder} cannot be copied to {copy} ({first_line(error)})") from error
    finally:
        if copy.is_dir():
            record.write_text(json.dumps(there))


def _check_reachable(path: Path) -> None:
    reasons = [f"no answer in {_PATIENCE:.0f} seconds"]

    def ask() -> None:
        try:
            path.exists()
            reasons.clear()
        except Exception as error:  # no network, no credentials, no right to read: whatever the library raises
            reasons[:] = [first_line(error)]

    # Without a network the library tries for more than half a minute.
    asking = threading.Thread(target=ask, name="bucket", daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    if reasons:
        raise UserError(f"{path} cannot be reached ({reasons[0]})")


def _set_up() -> None:
    """Tells fsspec what no run can do without, before epath makes the file system."""
    import fsspec.config

    # TensorStore writes to the same bucket, and a listing from before would hide it.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # It warns at each call that it does not know the type of a bucket, which makes no difference here.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # TensorStore has its own name for a server that stands in for Google's.
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)


def _file_system() -> Any:
    import fsspec

    return fsspec.filesystem("gcs")
