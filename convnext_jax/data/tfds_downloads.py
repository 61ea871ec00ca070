"""A download manager for builders of TFDS. It verifies files, and unpacks them temporarily."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from convnext_jax.data.archive_bounds import Bounds, bounds_of
from convnext_jax.data.archives import Kind, members
from convnext_jax.data.download import RemoteFile, obtain
from convnext_jax.errors import UserError, system_reason

_KINDS: dict[resource.ExtractMethod, Kind] = {
    resource.ExtractMethod.ZIP: "zip",
    resource.ExtractMethod.TAR: "tar",
    resource.ExtractMethod.TAR_GZ: "tar",
    resource.ExtractMethod.TAR_STREAM: "tar",
    resource.ExtractMethod.TAR_GZ_STREAM: "tar",
    resource.ExtractMethod.GZIP: "single",
    resource.ExtractMethod.BZIP2: "single",
}
# 60,000 images of 3,072 bytes and a label or two are 184 MB, in eight files.
_CIFAR = Bounds(total=256 << 20, member=256 << 20, count=100)
_BOUNDS = {"cifar10": _CIFAR, "cifar100": _CIFAR}


class Downloads:
    """A replacement for ``tfds.download.DownloadManager`` with the methods that builders call.

    It is a context manager. Unpacked files are deleted at the end of the context.

    Args:
      builder: the builder that uses the downloads.
      expected: for each URL the size, checksum and name of the file.
      folder: where downloads are kept.
      manual_dir: where the user may have put files, if anywhere.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        expected: Mapping[str, Any],
        folder: Path,
        manual_dir: Path | None,
    ) -> None:
        self._builder = builder
        self._expected = expected
        self._folder = folder
        self._manual_dir = manual_dir
        self._sizes: dict[str, int] = {}

    def __enter__(self) -> "Downloads":
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob("extracted-*"):  # left behind by a killed process
            shutil.rmtree(leftover, ignore_errors=True)
        self._extracted = tempfile.TemporaryDirectory(prefix="extracted-", dir=self._folder)
        return self

    def __exit__(self, *exc: object) -> None:
        self._extracted.cleanup()

    @property
    def download_dir(self) -> Path:
        """The folder in which downloads are kept."""
        return self._folder

    @property
    def downloaded_size(self) -> int:
        """The total size in bytes of all files that were requested."""
        return sum(self._sizes.values())

    @property
    def manual_dir(self) -> Path:
        """The folder with the user's archives, for data sets that cannot be downloaded automatically."""
        if self._manual_dir is None or not self._manual_dir.is_dir():
            instructions = " ".join((self._builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())
            raise UserError(
                f"data set {self._builder.name} must be fetched by hand: {instructions} "
                "Then name the folder with --config.data.manual_dir=DIR"
            )
        return self._manual_dir

    def download(self, urls: Any) -> Any:
        """Downloads a nested structure of URLs and returns the same structure of paths."""
        return _map(self._download_one, urls)

    def extract(self, paths: Any) -> Any:
        """Unpacks a nested structure of archives and returns the same structure of folders or single files.

        Raises:
          UserError: see `convnext_jax.data.archives.members`, or they cannot be written.
        """
        return _map(self._extract_one, paths)

    def download_and_extract(self, urls: Any) -> Any:
        """Downloads and unpacks a nested structure of URLs and returns the same structure of paths."""
        return _map(self._download_and_extract_one, urls)

    def iter_archive(self, archive: Any) -> Iterator[tuple[str, BinaryIO]]:
        """Yields the path in the archive and the open file for each file in an archive.

        Raises:
          UserError: see `convnext_jax.data.archives.members`.
        """
        path, method = _path_and_method(archive)
        if method not in _KINDS:
            raise UserError(f"{path} is no archive that can be unpacked: prepare {self._builder.name} elsewhere")
        yield from members(path, _KINDS[method], _BOUNDS.get(self._builder.name) or bounds_of(path, self._folder))

    def _download_one(self, url: Any) -> Path:
        address = url.url if isinstance(url, resource.Resource) else str(url)
        known = self._expected.get(address)
        if isinstance(known, RemoteFile):
            file = known
        elif known is None:
            file = RemoteFile(self._builder.name, address, os.path.basename(address), None)
        else:
            filename = known.filename or os.path.basename(address)
            file = RemoteFile(self._builder.name, address, filename, known.checksum, int(known.size))
        path = obtain(file, self._folder, self._manual_dir)
        self._sizes[address] = path.stat().st_size
        return path

    def _download_and_extract_one(self, url: Any) -> Path:
        path = self._download_one(url)
        if isinstance(url, resource.Resource):
            return self._extract_one(resource.Resource(path=path, extract_method=url.extract_method))
        return self._extract_one(path)

    def _extract_one(self, archive: Any) -> Path:
        path, method = _path_and_method(archive)
        if method == resource.ExtractMethod.NO_EXTRACT:
            return path
        target = Path(tempfile.mkdtemp(dir=self._extracted.name))
        for name, handle in self.iter_archive(archive):
            # A single compressed file has no name in the archive.
            out = target / (name or path.stem)
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                with out.open("wb") as copy:
                    shutil.copyfileobj(handle, copy)
            except OSError as error:  # the disk is full, or the name is too long or that of a folder, too
                raise UserError(
                    f"{path} cannot be unpacked to {self._folder} ({system_reason(error)}: {name!r:.120})"
                ) from error
            if not name:
                return out
        return target


def _path_and_method(archive: Any) -> tuple[Path, resource.ExtractMethod]:
    if isinstance(archive, resource.Resource):
        return Path(archive.path), archive.extract_method
    return Path(archive), resource.guess_extract_method(Path(archive).name)


def _map(function: Callable[[Any], Path], structure: Any) -> Any:
    """Applies ``function`` to the leaves of nested dicts, lists and tuples."""
    if isinstance(structure, Mapping):
        return {key: _map(function, value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)(_map(function, value) for value in structure)
    return function(structure)
