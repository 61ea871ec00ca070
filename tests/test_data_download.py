"""Downloads: resumed when cut, verified, set aside when wrong, and given up at once without a network."""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convnext_jax.data.download import RemoteFile, obtain
from convnext_jax.errors import UserError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; the attributes say how badly."""

    cut_after: int | None = None  # bytes after which the connection ends
    honors_ranges = True
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/archive.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.honors_ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.server.cut_after is None else body[: self.server.cut_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _file(url: str) -> RemoteFile:
    return RemoteFile("example", url, "archive.bin", SHA256, len(CONTENT))


def test_a_download_is_kept_and_not_repeated(server: Server, tmp_path: Path) -> None:
    path = obtain(_file(server.url), tmp_path, None)
    assert path.read_bytes() == CONTENT
    assert obtain(_file(server.url), tmp_path, None) == path
    assert server.ranges == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["archive.bin"]


@pytest.mark.parametrize("honors_ranges", [True, False])
def test_a_cut_download_is_never_taken_for_whole(server: Server, tmp_path: Path, honors_ranges: bool) -> None:
    server.honors_ranges = honors_ranges
    server.cut_after = 1000
    with pytest.raises(UserError, match=f"cannot download {server.url}"):
        obtain(_file(server.url), tmp_path, None)
    assert [p.name for p in tmp_path.iterdir()] == ["archive.bin.part"]
    assert (tmp_path / "archive.bin.part").read_bytes() == CONTENT[:1000]
    server.cut_after = None
    assert obtain(_file(server.url), tmp_path, None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_a_part_that_is_whole_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "archive.bin.part").write_bytes(CONTENT)
    assert obtain(_file("http://127.0.0.1:9/archive.bin"), tmp_path, None).read_bytes() == CONTENT


def test_a_wrong_download_is_set_aside(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    found = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(UserError, match=f"SHA-256 {found} .*expected {SHA256}; it was set aside as .*corrupt"):
        obtain(_file(server.url), tmp_path, None)
    assert [p.name for p in tmp_path.iterdir()] == ["archive.bin.corrupt"]
    server.content = CONTENT
    assert obtain(_file(server.url), tmp_path, None).read_bytes() == CONTENT


def test_a_download_that_does_not_end_is_given_up(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 20
    with pytest.raises(UserError, match=f"it is longer than the {len(CONTENT)} bytes that it should have"):
        obtain(_file(server.url), tmp_path, None)
    assert (tmp_path / "archive.bin.part").stat().st_size < len(server.content)
    server.content = CONTENT
    assert obtain(_file(server.url), tmp_path, None).read_bytes() == CONTENT


def test_a_damaged_earlier_download_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "archive.bin").write_bytes(b"damaged")
    assert obtain(_file(server.url), tmp_path, None).read_bytes() == CONTENT
    assert (tmp_path / "archive.bin.corrupt").read_bytes() == b"damaged"


def test_the_users_own_file_comes_first(tmp_path: Path) -> None:
    manual = tmp_path / "manual"
    manual.mkdir()
    (manual / "archive.bin").write_bytes(CONTENT)
    assert obtain(_file("http://127.0.0.1:9/archive.bin"), tmp_path / "downloads", manual) == manual / "archive.bin"
    (manual / "archive.bin").write_bytes(b"wrong")
    with pytest.raises(UserError, match=r"is not the example archive: SHA-256 .* fetch it again from http:"):
        obtain(_file("http://127.0.0.1:9/archive.bin"), tmp_path / "downloads", manual)
    assert (manual / "archive.bin").read_bytes() == b"wrong"


def test_no_network_is_told_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    message = r"http://127\.0\.0\.1:9/archive\.bin .*fetch it by hand as archive\.bin .*--config\.data\.manual_dir=DIR$"
    with pytest.raises(UserError, match=message):
        obtain(_file("http://127.0.0.1:9/archive.bin"), tmp_path, None)
    assert time.monotonic() - started < 5
