"""What an archive may hold, before any of it is unpacked."""

import dataclasses
import re
import shutil
from pathlib import Path

from convnext_jax.errors import UserError

# Data sets whose pictures are hardly compressed have ratios of 1 to 6 (MNIST). A hundred is no data set of pictures.
_MOST_RATIO = 100


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What an archive may hold.

    Attributes:
      total: bytes of all members, unpacked.
      member: bytes of one member, unpacked. A builder may read one as a whole.
      count: how many members.
    """

    total: int
    member: int
    count: int


def bounds_of(archive: Path, folder: Path) -> Bounds:
    """Returns the bounds of an archive of a data set whose extent is not known.

    Args:
      archive: the archive.
      folder: where it is unpacked.

    Returns:
      In total a hundred times the archive's size, and no more than the disk has left; 4 GiB for one member; five
      million members, where ImageNet has 1.4.
    """
    ratio = _MOST_RATIO * archive.stat().st_size + (16 << 20)
    return Bounds(min(ratio, shutil.disk_usage(folder).free), 4 << 30, 5_000_000)


def refused(path: Path, member: str, reason: str) -> UserError:
    """Returns the error for a member that is not unpacked."""
    return UserError(f"{path} is not unpacked: its member {member!r:.120} {reason}; fetch or make the archive again")


class Tally:
    """Adds up what an archive declares, and refuses names that lead out of its folder.

    Args:
      path: the archive.
      bounds: what it may hold.
    """

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._path = path
        self._bounds = bounds
        self._total = 0
        self._count = 0

    def add(self, member: str, size: int) -> None:
        """Counts a member. Raises UserError if it may not be unpacked."""
        if _leads_outside(member):
            raise refused(self._path, member, "lies outside of its folder")
        self._total += size
        self._count += 1
        if size < 0:
            raise refused(self._path, member, "has a size below 0")
        most = self._bounds
        if size > most.member or self._total > most.total or self._count > most.count:
            raise UserError(
                f"{self._path} is not unpacked: it is not of the size of this data set, which has at most"
                f" {most.total:,} bytes, {most.member:,} in a file, and {most.count:,} files (refused at file"
                f" {self._count:,}, {member!r:.120}, with {self._total:,} bytes); fetch or make the archive again"
            )


def _leads_outside(member: str) -> bool:
    plain = member.replace("\\", "/")
    return plain.startswith("/") or bool(re.match("[A-Za-z]:/", plain)) or ".." in plain.split("/") or "\0" in plain
