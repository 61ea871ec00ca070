"""Data that others made run no code and do not fill the machine: pictures, builders of TFDS, prepared data."""

import io
import json
import pickle
import shutil
import struct
import tarfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.data.decode import MOST_BYTES, Picture, decode_picture
from convnext_jax.data.image_folder import FileSource
from convnext_jax.data.prepared import find_prepared
from convnext_jax.data.tfds_builders import make_builder
from convnext_jax.data.tfds_downloads import Downloads
from convnext_jax.errors import UserError

# --- pictures


def png(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds nothing."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(8193, 8193), (12_000, 12_000), (100_000, 100_000)])
def test_a_picture_that_declares_an_absurd_size_is_refused(size: tuple[int, int]) -> None:
    # Pillow alone would read the first, warn of the second and refuse the third.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match=r"picture a\.png .*(would have .* pixels|exceeds limit).*: replace or"):
            decode_picture(Picture("a.png", png(*size), 0))
    assert not caught


def test_a_line_of_pixels_is_not_made_as_broad_as_it_is_long() -> None:
    line = saved(Image.new("RGB", (60_000, 1)), "png")
    assert decode_picture(Picture("a.png", line, 0)).shape == (1, 60_000, 3)
    with pytest.raises(
        UserError, match=r"picture a\.png would have 3840000x64 pixels, and at most 67,108,864 make sense"
    ):
        decode_picture(Picture("a.png", line, 0), 64)


def test_postscript_is_not_run_whatever_its_name_is(monkeypatch: pytest.MonkeyPatch) -> None:
    script = saved(Image.new("RGB", (8, 8)), "eps")
    with Image.open(io.BytesIO(script)) as opened:
        assert opened.format == "EPS", "Pillow would call Ghostscript"
    with pytest.raises(UserError, match=r"picture a\.png cannot be read \(no picture of a kind that is read\)"):
        decode_picture(Picture("a.png", script, 0))


def tiff_of_one_tile(side: int) -> bytes:
    """A TIFF of 16x16 black pixels in one tile, compressed, of the given size."""
    data = zlib.compress(bytes(side * side))
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_a_tile_much_larger_than_its_picture_is_refused() -> None:
    assert decode_picture(Picture("a.tif", tiff_of_one_tile(16), 0)).tolist() == np.zeros((16, 16, 3)).tolist()
    bomb = tiff_of_one_tile(16).replace(struct.pack("<HHII", 322, 4, 1, 16), struct.pack("<HHII", 322, 4, 1, 1 << 25))
    with pytest.raises(UserError, match=r"picture a\.tif would have 33554432x16 pixels"):
        decode_picture(Picture("a.tif", bomb, 0))


def test_a_picture_without_pixels_is_refused() -> None:
    empty = saved(Image.new("RGB", (1, 1)), "gif").replace(struct.pack("<HH", 1, 1), bytes(4))
    with pytest.raises(UserError, match=r"picture a\.gif .*: replace or remove it"):
        decode_picture(Picture("a.gif", empty, 0), 8)


def test_a_file_that_no_picture_fills_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    source = FileSource((str(tmp_path / "a.png"),), (0,))
    with pytest.raises(UserError, match=r"a\.png has 268,435,457 bytes, and at most 268,435,456 make sense"):
        next(source.read(0, 1))


# --- archives and builders of TFDS


class Pickled(tfds.core.GeneratorBasedBuilder):
    """A data set that reads what others wrote in a way that may run code, as cifar10_n does."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "none"

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {name: self._generate_examples(dl_manager.manual_dir) for name in ("train", "test")}

    def _generate_examples(self, folder: Path) -> Any:
        labels = np.load(folder / "labels.npy", allow_pickle=True)
        for index, label in enumerate(labels):
            yield index, {"image": np.zeros((8, 8, 3), np.uint8), "label": int(label)}


class Touch:
    """What a pickle may do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def prepare(folder: Path) -> Any:
    return load(DataConfig("pickled", data_dir=str(folder / "data"), manual_dir=str(folder)))


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "labels.npy"


def test_a_builder_of_tfds_does_not_unpickle(labels: Path) -> None:
    np.save(labels, np.array([0, 1]))
    assert len(prepare(labels.parent).train) == 2, "the builder works"
    shutil.rmtree(labels.parent / "data")
    touched = labels.parent / "touched"
    for content in (pickle.dumps(Touch(touched)), None):
        if content is None:
            np.save(labels, np.array([Touch(touched)], object), allow_pickle=True)
        else:
            labels.write_bytes(content)
        with pytest.raises(UserError, match="the TFDS builder of pickled reads a pickle .*, which may run any code"):
            prepare(labels.parent)
    assert not touched.exists()
    assert np.load(labels, allow_pickle=True).shape == (1,) and touched.exists(), "elsewhere pickles are read"


def test_what_a_builder_of_tfds_cannot_read_is_said_in_a_line(labels: Path) -> None:
    labels.write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"the TFDS builder of pickled cannot use its files \(.*Fetch them again$"):
        prepare(labels.parent)


def test_prepared_data_name_no_code_to_import(labels: Path) -> None:
    np.save(labels, np.array([0, 1]))
    prepare(labels.parent)
    folder = find_prepared(labels.parent / "data", "pickled")
    assert folder is not None
    shutil.rmtree(labels.parent / "cache", ignore_errors=True)
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["other"] = {"pythonClassName": "antigravity.Feature"}
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"features\.json names code to run, 'antigravity\.Feature'"):
        prepare(labels.parent)


@pytest.mark.parametrize(
    ("name", "message"), [("cifar100", "is not of the size of this data set"), ("cifar10", "a link")]
)
def test_an_archive_of_a_builder_is_verified_before_it_is_unpacked(tmp_path: Path, name: str, message: str) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("train.bin")
        if name == "cifar10":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
        else:
            for index in range(101):
                member.name = str(index)
                archive.addfile(member)
    with Downloads(make_builder(name, tmp_path, None), {}, tmp_path / "downloads", None) as downloads:
        with pytest.raises(UserError, match=rf"a\.tar\.gz is not unpacked: .*{message}"):
            downloads.extract(tmp_path / "a.tar.gz")
    assert not list((tmp_path / "downloads").iterdir())


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for member in ("a", "a/b"):
            archive.addfile(tarfile.TarInfo(member))
    with Downloads(make_builder("mnist", tmp_path, None), {}, tmp_path / "downloads", None) as downloads:
        with pytest.raises(UserError, match=r"a\.tar\.gz cannot be unpacked to .*: 'a/b'"):
            downloads.extract(tmp_path / "a.tar.gz")
        with pytest.raises(UserError, match="is no archive that can be unpacked"):
            next(downloads.iter_archive(tmp_path / "a.txt"))
