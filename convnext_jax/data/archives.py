"""Archives that others made: read without writing outside a folder, following links or filling the machine.

Everything is verified here, whatever Python's and TFDS's own readers do. What an archive declares is added up before it
is unpacked, and what comes out of it is counted while it is read, in small pieces.
"""

import contextlib
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from convnext_jax.data.archive_bounds import Bounds, Tally, refused
from convnext_jax.data.bounded_streams import HeaderReader, bounded, open_compressed
from convnext_jax.errors import UserError, first_line

Kind = Literal["zip", "tar", "single"]  # "single" is one file, compressed with gzip or bzip2


def members(path: Path, kind: Kind, bounds: Bounds) -> Iterator[tuple[str, BinaryIO]]:
    """Yields the name of each file in an archive, and the file, open for reading until the next one.

    Folders are left out, and so are hidden files and backups, as TFDS does. A single compressed file has no name.

    Args:
      path: the archive.
      kind: its kind.
      bounds: what it may hold.

    Raises:
      UserError: the archive is damaged; a member lies outside of its folder, is a link or a device, or is encrypted; or
        it holds more than the bounds. Reading a file raises it, too.
    """
    if kind == "zip":
        with open_zip(path, bounds) as archive:
            for name in archive.names:
                if not _is_hidden(plain := str(PurePosixPath(name))):
                    with archive.open(name) as file:
                        yield plain, file
    elif kind == "tar":
        yield from _tar_members(path, bounds)
    else:
        with _refusing(path), open_compressed(path) as stream:
            yield "", bounded(stream, path, min(bounds.total, bounds.member))


class ZipArchive:
    """A zip archive, verified as a whole: use `open_zip`.

    Attributes:
      names: the files that it holds, in its order.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, bounds: Bounds) -> None:
        self._path = path
        self._archive = archive
        tally = Tally(path, bounds)
        self._files: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            tally.add(info.filename, info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refused(path, info.filename, "is a link or a device")
            if info.flag_bits & 1:
                raise refused(path, info.filename, "is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Python unpacks a piece of the other methods whole, whatever comes out of it.
                raise refused(path, info.filename, "is compressed by another method than deflate")
            if not info.is_dir():
                self._files[info.filename] = info
        self.names = tuple(self._files)

    def open(self, name: str) -> BinaryIO:
        """Opens a file. Raises KeyError if there is none, and UserError while it is read if it is damaged."""
        if name not in self._files:
            raise KeyError(f"there is no {name}")
        info = self._files[name]
        try:
            return bounded(self._archive.open(info), self._path, info.file_size, name)
        except Exception as error:
            raise _damaged(self._path, error) from error

    def read(self, name: str) -> bytes:
        """Returns the content of a file. Raises KeyError and UserError as `open` does."""
        with self.open(name) as file:
            return file.read()


@contextlib.contextmanager
def open_zip(path: Path, bounds: Bounds) -> Iterator[ZipArchive]:
    """Opens a zip archive for reading in any order.

    Args:
      path: the archive.
      bounds: what it may hold.

    Raises:
      UserError: see `members`.
    """
    with _refusing(path):
        archive = zipfile.ZipFile(path)
    with archive:
        with _refusing(path):
            verified = ZipArchive(path, archive, bounds)
        yield verified


def _tar_members(path: Path, bounds: Bounds) -> Iterator[tuple[str, BinaryIO]]:
    tally = Tally(path, bounds)
    with contextlib.ExitStack() as stack:
        with _refusing(path):
            stream = stack.enter_context(open_compressed(path))
            # A member has headers of some 512 bytes each, and is filled up to a multiple of 512; the end is padded.
            most = bounds.total + 4096 * bounds.count + (1 << 20)
            reader = stack.enter_context(HeaderReader(stream, path, most))
            with reader.header():  # it reads the first one at once
                archive = stack.enter_context(tarfile.open(fileobj=reader, mode="r:"))
        while True:
            with _refusing(path), reader.header():
                member = archive.next()
            if member is None:
                return
            cast(Any, archive).members.clear()  # it would keep them all
            tally.add(member.name, member.size)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise refused(path, member.name, "is a link or a device")
            name = str(PurePosixPath(member.name))
            if not _is_hidden(name):
                with _refusing(path):
                    content = archive.extractfile(member)
                assert content is not None
                with bounded(content, path, member.size, name) as file:
                    yield name, file


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.endswith("~") or PurePosixPath(name).name.startswith(".")


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turns what the readers raise about a damaged archive into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # they raise errors of any kind
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({first_line(error)}): fetch or make it again")
