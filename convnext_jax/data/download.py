"""Obtains a file from the user's folder, an earlier download or the network, and verifies it."""

import dataclasses
import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from convnext_jax.errors import UserError

TIMEOUT = 10.0  # seconds without a response, or without new bytes, before giving up
BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A published file of a data set.

    Attributes:
      dataset: name of the data set that it belongs to.
      url: where it is published.
      filename: its name on disk.
      sha256: its checksum in hexadecimal; None if it is unknown.
      size: its size in bytes; None if it is unknown.
    """

    dataset: str
    url: str
    filename: str
    sha256: str | None
    size: int | None = None


def obtain(file: RemoteFile, folder: Path, manual_dir: Path | None) -> Path:
    """Returns the path of a verified copy of a file. Downloads the file if there is no copy.

    Args:
      file: the file to obtain.
      folder: where downloads are kept. Only one process at a time may use it.
      manual_dir: where the user may have put the file, if anywhere.

    Raises:
      UserError: the user's file or the download has the wrong checksum, or the file cannot be downloaded.
    """
    if manual_dir is not None and (manual_dir / file.filename).is_file():
        path = manual_dir / file.filename
        if problem := _mismatch(path, file):
            raise UserError(f"{path} is not the {file.dataset} archive: {problem}; fetch it again from {file.url}")
        return path
    path = folder / file.filename
    if path.is_file():
        if not _mismatch(path, file):
            return path
        _set_aside(path)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _download(file, part, manual_dir)
    if problem := _mismatch(part, file):
        aside = _set_aside(part, path)
        raise UserError(
            f"{file.dataset}: the download of {file.url} is not what was expected: {problem}; it was set "
            f"aside as {aside}: run again to download it again, or {_by_hand(file, manual_dir)}"
        )
    part.rename(path)
    return path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _mismatch(path: Path, file: RemoteFile) -> str | None:
    """Returns how a file differs from the expected checksum or size, or None if it does not."""
    size = path.stat().st_size
    if file.sha256 is not None:
        found = sha256_of(path)
        if found != file.sha256:
            return f"SHA-256 {found} ({size} bytes), expected {file.sha256}"
    elif file.size is not None and size != file.size:
        return f"{size} bytes, expected {file.size}"
    return None


def _set_aside(path: Path, final: Path | None = None) -> Path:
    """Renames a corrupt file after the name that it has, or would have had, and returns the new path."""
    final = final or path
    aside = final.with_name(final.name + ".corrupt")
    path.replace(aside)
    return aside


def _by_hand(file: RemoteFile, manual_dir: Path | None) -> str:
    """Returns the part of an error message that says how to fetch a file by hand."""
    if manual_dir is not None:
        return f"fetch it by hand as {manual_dir / file.filename}"
    return f"fetch it by hand as {file.filename} and name its folder with --config.data.manual_dir=DIR"


def _download(file: RemoteFile, part: Path, manual_dir: Path | None) -> None:
    """Downloads what ``part`` does not contain of ``file`` yet."""
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have == file.size:
        return  # complete, but the process ended before it was verified
    try:
        with _open_url(file, have) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0
            _save(response, part, file, have)
    except (OSError, http.client.HTTPException) as error:  # OSError includes URLError and timeouts
        reason = " ".join(str(getattr(error, "reason", "") or error or type(error).__name__).split())
        raise UserError(
            f"{file.dataset}: cannot download {file.url} ({reason}): run again when the network is available, "
            f"or {_by_hand(file, manual_dir)}"
        ) from error


def _open_url(file: RemoteFile, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "convnext_jax"}
    if 0 < have and (file.size is None or have < file.size):
        headers["Range"] = f"bytes={have}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(file.url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or "Range" not in headers:
            raise
        return _open_url(file, 0)


def _save(response: http.client.HTTPResponse, part: Path, file: RemoteFile, have: int) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length else file.size
    with (
        part.open("ab" if have else "wb") as out,
        tqdm(
            total=total,
            initial=have,
            desc=f"downloading {file.filename}",
            unit="B",
            unit_scale=True,
            disable=None,
        ) as bar,
    ):
        while block := response.read1(BLOCK):
            out.write(block)
            have += len(block)
            bar.update(len(block))
            if file.size is not None and have > file.size:  # it might never end
                raise OSError(f"it is longer than the {file.size} bytes that it should have")
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes; they are kept")
