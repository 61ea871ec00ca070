"""Archives that others made: what leads out of their folder, links, and bombs are refused by name."""

import bz2
import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convnext_jax.data.archive_bounds import Bounds, bounds_of
from convnext_jax.data.archives import Kind, members, open_zip
from convnext_jax.errors import UserError

BOUNDS = Bounds(total=1 << 20, member=1 << 19, count=50)
FILES = {"a/b.txt": b"content of b", "c.bin": bytes(range(256)) * 9}


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: Any = "w:gz", **fields: Any) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(path: Path, kind: Kind, bounds: Bounds = BOUNDS) -> dict[str, bytes]:
    return {name: file.read() for name, file in members(path, kind, bounds)}


WRITERS: dict[str, tuple[Callable[[Path, dict[str, bytes]], Path], Kind]] = {
    "a.zip": (write_zip, "zip"),
    "a.tar": (lambda path, files: write_tar(path, files, "w"), "tar"),
    "a.tar.gz": (write_tar, "tar"),
    "a.tar.bz2": (lambda path, files: write_tar(path, files, "w:bz2"), "tar"),
}


@pytest.mark.parametrize("archive", WRITERS)
def test_the_files_come_out_as_they_went_in(tmp_path: Path, archive: str) -> None:
    write, kind = WRITERS[archive]
    files = FILES | {".hidden": b"x", "a/.DS_Store": b"x", "old~": b"x", "n" * 200 + "/x": b"long"}
    assert unpack(write(tmp_path / archive, files), kind) == FILES | {"n" * 200 + "/x": b"long"}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_single_compressed_file(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a").write_bytes(compress(b"content"))
    assert unpack(tmp_path / "a", "single") == {"": b"content"}
    (tmp_path / "a").write_bytes(compress(bytes(BOUNDS.member + 1)))
    with pytest.raises(UserError, match=f"{tmp_path / 'a'} unpacks to more than 524,288 bytes"):
        unpack(tmp_path / "a", "single")


@pytest.mark.parametrize("archive", WRITERS)
def test_the_files_can_be_read_as_builders_do(tmp_path: Path, archive: str) -> None:
    write, kind = WRITERS[archive]
    for name, file in members(write(tmp_path / archive, FILES), kind, BOUNDS):
        assert file.read(3) == FILES[name][:3] and file.tell() == 3
        file.seek(0)
        assert b"".join(file) == FILES[name]
        assert file.seek(-2, io.SEEK_END) == len(FILES[name]) - 2 and file.read() == FILES[name][-2:]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x", "C:\\x", "a/.."])
@pytest.mark.parametrize("archive", WRITERS)
def test_what_lies_outside_is_refused(tmp_path: Path, archive: str, name: str) -> None:
    write, kind = WRITERS[archive]
    path = write(tmp_path / archive, {"fine": b"", name: b"x"})
    with pytest.raises(UserError, match=f"{path} is not unpacked: its member .* lies outside of its folder; fetch"):
        unpack(path, kind)


LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"x": b""}, type=kind, linkname="y")
    with pytest.raises(UserError, match="its member 'x' is a link or a device"):
        unpack(path, "tar")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    path = write_zip(tmp_path / "a.zip", {"x": b"/etc/passwd"}, mode=kind | 0o644)
    with pytest.raises(UserError, match="its member 'x' is a link or a device"):
        unpack(path, "zip")


@pytest.mark.parametrize("archive", WRITERS)
@pytest.mark.parametrize(
    "files",
    [
        {"one": bytes(BOUNDS.member + 1)},
        {str(index): bytes(BOUNDS.member) for index in range(3)},
        {str(index): b"" for index in range(BOUNDS.count + 1)},
    ],
    ids=["one file", "all files", "many files"],
)
def test_more_than_the_data_set_can_have_is_refused(tmp_path: Path, archive: str, files: dict[str, bytes]) -> None:
    write, kind = WRITERS[archive]
    path = write(tmp_path / archive, files)
    with pytest.raises(
        UserError, match=f"{path} is not unpacked: .* at most 1,048,576 bytes, 524,288 in a file, and 50"
    ):
        unpack(path, kind)


def peak(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_zip_that_declares_less_than_it_holds_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"bomb": bytes(64 << 20)})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 64 << 20), struct.pack("<I", 1000)))
    assert peak(lambda: unpack(path, "zip")) < 4 << 20
    with pytest.raises(UserError, match="'bomb' in .*a.zip is damaged .*CRC"):
        unpack(path, "zip")


@pytest.mark.parametrize("before", [{}, {"x": b"1"}], ids=["first", "second"])
def test_a_tar_header_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path, before: dict[str, bytes]) -> None:
    # A name of 64 MiB: tarfile would take it into memory as a whole.
    header = tarfile.TarInfo("././@LongLink")
    header.size, header.type = 64 << 20, tarfile.GNUTYPE_LONGNAME
    path = tmp_path / "a.tar.gz"
    start = write_tar(path, before, "w").read_bytes()[: 1024 * len(before)]
    path.write_bytes(gzip.compress(start + header.tobuf() + b"n" * header.size))
    assert peak(lambda: unpack(path, "tar")) < 8 << 20
    with pytest.raises(UserError, match="a header of absurd size"):
        unpack(path, "tar")


@pytest.mark.parametrize(("method", "reason"), [(zipfile.ZIP_BZIP2, "another method"), (zipfile.ZIP_LZMA, "another")])
def test_methods_that_python_unpacks_whole_are_refused(tmp_path: Path, method: int, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        unpack(write_zip(tmp_path / "a.zip", FILES, method), "zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"x": b"1"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="its member 'x' is encrypted"):
        unpack(path, "zip")


@pytest.mark.parametrize("archive", WRITERS)
def test_a_cut_archive_is_said_to_be_damaged(tmp_path: Path, archive: str) -> None:
    write, kind = WRITERS[archive]
    path = write(tmp_path / archive, {"x": bytes(range(256)) * 200})
    path.write_bytes(path.read_bytes()[:-11000] if archive == "a.tar" else path.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"{path} is damaged"):
        unpack(path, kind)


def test_an_unknown_data_set_may_unpack_to_a_hundred_times_its_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(bytes(1000))
    assert bounds_of(tmp_path / "a.tar.gz", tmp_path).total == 100_000 + (16 << 20)


def test_a_zip_is_read_in_any_order(tmp_path: Path) -> None:
    with open_zip(write_zip(tmp_path / "a.zip", FILES), BOUNDS) as archive:
        assert archive.names == tuple(FILES)
        assert archive.read("c.bin") == FILES["c.bin"] and archive.read("a/b.txt") == FILES["a/b.txt"]
        with pytest.raises(KeyError, match="there is no d"):
            archive.open("d")
