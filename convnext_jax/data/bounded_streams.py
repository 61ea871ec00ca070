"""Streams that give no more than they may, in pieces, however much a decompressor could make of a few bytes."""

import bz2
import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from convnext_jax.errors import UserError, first_line

_PIECE = 1 << 16
_MOST_HEADER = 1 << 20  # bytes of a long name and the like, before a member of a tar


class _BoundedRaw(io.RawIOBase):
    """A stream that ends in an error where it gets too long, and whose errors name the file.

    Args:
      source: what is read. It is closed with this one.
      path: the file that it comes from.
      most: bytes that it may have.
      member: what it is called in an archive.
    """

    def __init__(self, source: Any, path: Path, most: int, member: str = "") -> None:
        self._source = source
        self._most = most
        self._where = f"{member!r:.120} in {path}" if member else str(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._errors():
            content = self._source.read(min(len(buffer), _PIECE))
            self._check(self._source.tell())
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._errors():
            if whence == io.SEEK_END:  # a decompressor would have to read to the end
                while self._source.read(_PIECE):
                    self._check(self._source.tell())
                offset += self._source.tell()
            elif whence == io.SEEK_CUR:
                offset += self._source.tell()
            self._check(offset)
            return self._source.seek(max(0, offset))

    def tell(self) -> int:
        return self._source.tell()

    def close(self) -> None:
        self._source.close()
        super().close()

    def _check(self, position: int) -> None:
        if position > self._most:
            raise UserError(f"{self._where} unpacks to more than {self._most:,} bytes: fetch or make the archive again")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # zlib.error, EOFError, BadZipFile, OSError, ...
            reason = f"{self._where} is damaged ({first_line(error)})"
            raise UserError(f"{reason}: fetch or make the archive again") from error


def bounded(source: Any, path: Path, most: int, member: str = "") -> BinaryIO:
    """Returns a file with the content of another one, in pieces of 64 KiB.

    Args:
      source: the other file. It is closed with this one.
      path: what error messages call it.
      most: bytes that it may have; reading beyond raises UserError.
      member: its name in the archive ``path``.
    """
    return cast(BinaryIO, io.BufferedReader(_BoundedRaw(source, path, most, member), _PIECE))


class HeaderReader(io.BufferedReader):
    """A bounded file for the tar reader, which takes whatever a header declares as the size of the next header."""

    def __init__(self, source: Any, path: Path, most: int) -> None:
        super().__init__(_BoundedRaw(source, path, most), _PIECE)
        self._path = path
        self._left: int | None = None

    @contextlib.contextmanager
    def header(self) -> Iterator[None]:
        """While the next header is read, no more than a mebibyte is."""
        self._left = _MOST_HEADER
        try:
            yield
        finally:
            self._left = None

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader.read`."""
        if self._left is not None:
            self._left -= max(0, size or 0)
            if self._left < 0:
                raise UserError(f"{self._path} is damaged (a header of absurd size): fetch or make it again")
        return super().read(size)


def open_compressed(path: Path) -> BinaryIO:
    """Opens a file that is compressed with gzip or bzip2, or not at all, by its first bytes."""
    with path.open("rb") as file:
        magic = file.read(3)
    if magic.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(path))
    if magic == b"BZh":
        return cast(BinaryIO, bz2.open(path))
    return path.open("rb")
