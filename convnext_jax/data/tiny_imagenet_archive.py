"""The Tiny ImageNet archive: the official one, or the user's own with its own checksum."""

import dataclasses
import re
from pathlib import Path

from convnext_jax.data.download import RemoteFile
from convnext_jax.errors import UserError
from convnext_jax.storage.bounded import read_bounded

OFFICIAL = RemoteFile(
    dataset="tiny_imagenet",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    filename="tiny-imagenet-200.zip",
    sha256="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
    size=248_100_043,
)
PATTERN = "tiny-imagenet-200*.zip"


@dataclasses.dataclass(frozen=True)
class TinyImagenetArchive:
    """An archive with the official layout.

    Attributes:
      filename: the name of the file.
      sha256: the checksum that it must have, in hexadecimal.
    """

    filename: str = OFFICIAL.filename
    sha256: str = OFFICIAL.sha256 or ""

    @property
    def variant(self) -> str | None:
        """The name of the configuration of the prepared data; None for the official archive."""
        return None if self.sha256 == OFFICIAL.sha256 else f"archive_{self.sha256[:12]}"

    @property
    def file(self) -> RemoteFile:
        """The archive as a file for `convnext_jax.data.download.obtain`."""
        if self.variant is None:
            return OFFICIAL
        return dataclasses.replace(OFFICIAL, filename=self.filename, sha256=self.sha256, size=None)


def choose_archive(manual_dir: Path | None) -> TinyImagenetArchive:
    """Chooses the archive to use, without reading it.

    If an archive in ``manual_dir`` has a file ``<archive>.sha256`` next to it, as written by ``sha256sum``, its
    checksum must be the one in this file. Without such a file it must be the official archive.

    Args:
      manual_dir: the folder with the user's archive, if any.

    Returns:
      The archive in ``manual_dir``, or the official one if there is none.

    Raises:
      UserError: there are several archives to choose from, the only one has neither the official name nor a checksum
        file, or the checksum file is malformed.
    """
    if manual_dir is None:
        return TinyImagenetArchive()
    names = {path.name for path in manual_dir.glob(PATTERN)}
    names |= {path.name.removesuffix(".sha256") for path in manual_dir.glob(PATTERN + ".sha256")}
    if not names:
        return TinyImagenetArchive()
    if OFFICIAL.filename not in names and len(names) > 1:
        listed = ", ".join(sorted(names))
        raise UserError(f"{manual_dir} holds several Tiny ImageNet archives ({listed}): leave only one there")
    filename = OFFICIAL.filename if OFFICIAL.filename in names else names.pop()
    declared = manual_dir / f"{filename}.sha256"
    if declared.is_file():
        return TinyImagenetArchive(filename, _read_checksum(declared))
    if filename != OFFICIAL.filename:
        raise UserError(
            f"{manual_dir / filename} is not called {OFFICIAL.filename} and has no checksum file: if it is "
            "meant to differ from the official archive, write its checksum next to it with "
            f"`sha256sum {filename} > {filename}.sha256`"
        )
    return TinyImagenetArchive()


def _read_checksum(path: Path) -> str:
    words = read_bounded(path, 1 << 16).decode(errors="replace").split()
    if not words or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
        raise UserError(f"{path} does not begin with a SHA-256 (64 hexadecimal digits): write it with sha256sum")
    return words[0].lower()
