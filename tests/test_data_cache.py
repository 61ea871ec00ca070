"""The cache of decoded images: whole or not there, made once, and found again."""

import dataclasses
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_jax.data import cache, decode
from convnext_jax.data.cache import CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import PixelSums
from convnext_jax.data.decode import Picture, decode_split
from convnext_jax.errors import UserError
from convnext_jax.files import is_writable


@dataclasses.dataclass(frozen=True)
class RandomPictures:
    """Random PNGs that are functions of (seed, index); each read of a picture adds a line to ``journal``."""

    seed: int
    count: int = 5
    journal: Path | None = None
    broken: int | None = None

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> np.ndarray:
        return np.random.default_rng([self.seed, index]).integers(0, 256, (6, 6, 3), np.uint8)

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        for index in range(start, stop):
            if self.journal is not None:
                with self.journal.open("a") as journal:
                    journal.write(f"{os.getpid()}\n")
                time.sleep(0.02)
            buffer = io.BytesIO()
            Image.fromarray(self.pixels(index)).save(buffer, "png")
            encoded = b"broken" if index == self.broken else buffer.getvalue()
            yield Picture(str(index), encoded, index % 3)


SOURCES = {"train": RandomPictures(0), "test": RandomPictures(1, 3)}
NAMES = ("a", "b", "c")


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CacheKey:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return CacheKey("example", tmp_path / "data", "fingerprint", None)


def test_what_is_cached_is_what_was_encoded(key: CacheKey) -> None:
    assert open_cache(key) is None
    build_cache(key, SOURCES, NAMES)
    dataset = open_cache(key)
    assert dataset is not None
    expected = np.stack([SOURCES["train"].pixels(i) for i in range(5)])
    np.testing.assert_array_equal(dataset.train.images, expected)
    assert dataset.train.labels.tolist() == [0, 1, 2, 0, 1]
    assert dataset.class_names == NAMES
    assert isinstance(dataset.train.images, np.memmap) and not dataset.train.images.flags.writeable
    scaled = expected.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-6)
    assert not list(key.source.glob(".*.tmp-*")), "no temporary files stay"


def test_a_pool_of_processes_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = RandomPictures(2, 40)
    alone = decode_split(source, tmp_path / "alone.npy", None, "alone")
    monkeypatch.setattr(decode, "SERIAL_BELOW", 0)
    monkeypatch.setattr(decode, "_cpu_count", lambda: 2)
    many = RandomPictures(2, 1100)  # three chunks
    labels, sums = decode_split(many, tmp_path / "many.npy", None, "many")
    images = np.load(tmp_path / "many.npy")
    np.testing.assert_array_equal(images[1099], many.pixels(1099))
    np.testing.assert_array_equal(images[:40], np.load(tmp_path / "alone.npy"))
    np.testing.assert_array_equal(labels[:40], alone[0])
    assert sums == PixelSums.of(images) and alone[1] == PixelSums.of(images[:40])


def test_an_error_reaches_us_from_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "SERIAL_BELOW", 0)
    monkeypatch.setattr(decode, "_cpu_count", lambda: 2)
    with pytest.raises(UserError, match="picture 700 cannot be read"):
        decode_split(RandomPictures(2, 1100, broken=700), tmp_path / "many.npy", None, "many")


def test_a_full_disk_is_told_beforehand(key: CacheKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=100))
    with pytest.raises(UserError, match="needs 540 bytes in .*, and 100 are free: make room there"):
        build_cache(key, SOURCES, NAMES)


def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "print('once')\n"
        "from convnext_jax.data import decode\n"
        "from test_data_cache import RandomPictures\n"
        "decode.SERIAL_BELOW, decode._cpu_count = 0, lambda: 2\n"
        "labels, _ = decode.decode_split(RandomPictures(0, 600), pathlib.Path('images.npy'), None, 'x')\n"
        "print(len(labels))\n"
    )
    tests = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "once\n600\n", done.stderr
    assert not done.stderr


def _build(key: CacheKey, journal: Path, done: "multiprocessing.Queue[list[int]]") -> None:
    sources = {"train": RandomPictures(0, 5, journal), "test": RandomPictures(1, 3, journal)}
    dataset = build_cache(key, sources, NAMES)
    done.put(dataset.train.labels.tolist())


def test_two_processes_do_the_work_once(key: CacheKey, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    journal = tmp_path / "journal"
    processes = [context.Process(target=_build, args=(key, journal, done)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [done.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert results == [[0, 1, 2, 0, 1]] * 2
    assert len(set(journal.read_text().split())) == 1, "only one of them decoded anything"


def test_a_killed_process_does_no_harm(key: CacheKey) -> None:
    folder = key.folders()[0]
    code = (
        "import pathlib, sys, tempfile, time\n"
        "from convnext_jax.files import exclusive\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with exclusive(folder.parent / f'.{folder.name}.lock'):\n"
        "    tempfile.mkdtemp(prefix=f'.{folder.name}.tmp-', dir=folder.parent)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.kill()
    assert list(folder.parent.glob(".*.tmp-*"))
    build_cache(key, SOURCES, NAMES)
    assert not list(folder.parent.glob(".*.tmp-*"))


def test_a_failure_leaves_no_cache(key: CacheKey) -> None:
    with pytest.raises(UserError, match="labels from 0 to 2, and there are 2 classes"):
        build_cache(key, SOURCES, NAMES[:2])
    assert [p.name for p in key.source.iterdir()] == [".convnext_jax_cache-native-v1.lock"]


@pytest.mark.parametrize("damage", ["truncated", "description", "missing", "other data"])
def test_a_damaged_cache_is_made_again(key: CacheKey, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    build_cache(key, SOURCES, NAMES)
    folder = key.folders()[0]
    images = folder / "train_images.npy"
    if damage == "truncated":
        images.write_bytes(images.read_bytes()[:-10])
    elif damage == "description":
        (folder / "dataset.json").write_text("{}")
    elif damage == "missing":
        images.unlink()
    else:
        np.save(images, np.zeros((4, 6, 6, 3), np.uint8))
    assert open_cache(key) is None
    if damage != "missing":
        assert "cannot be used" in caplog.text
    dataset = build_cache(key, SOURCES, NAMES)
    np.testing.assert_array_equal(dataset.train.images[4], SOURCES["train"].pixels(4))


def test_changed_data_is_decoded_again(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    changed = dataclasses.replace(key, fingerprint="another")
    assert open_cache(changed) is None
    dataset = build_cache(changed, {"train": RandomPictures(7), "test": RandomPictures(8)}, NAMES)
    np.testing.assert_array_equal(dataset.train.images[0], RandomPictures(7).pixels(0))


def test_read_only_data_is_cached_for_the_user(key: CacheKey, tmp_path: Path) -> None:
    key.source.chmod(0o555)
    assert not is_writable(key.source)
    before = key.source.stat()
    dataset = build_cache(key, SOURCES, NAMES)
    assert not list(key.source.iterdir())
    assert key.source.stat().st_mtime_ns == before.st_mtime_ns
    assert isinstance(dataset.train.images, np.memmap)
    assert str(dataset.train.images.filename).startswith(str(tmp_path / "cache" / "convnext_jax"))
    assert open_cache(key) is not None
    assert open_cache(dataclasses.replace(key, fingerprint="another")) is None


def test_nowhere_to_write(key: CacheKey, tmp_path: Path) -> None:
    key.source.chmod(0o555)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o555)
    with pytest.raises(UserError, match="can be written neither to .*set XDG_CACHE_HOME"):
        build_cache(key, SOURCES, NAMES)


def test_the_size_is_part_of_the_name(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    small = dataclasses.replace(key, image_size=4)
    assert open_cache(small) is None
    assert build_cache(small, SOURCES, NAMES).train.images.shape == (5, 4, 4, 3)
    native = open_cache(key)
    assert native is not None and native.train.images.shape == (5, 6, 6, 3)


def test_the_description_tells_what_is_there(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    meta = json.loads((key.folders()[0] / cache.DESCRIPTION).read_text())
    assert meta["class_names"] == list(NAMES) and meta["shapes"]["test_images"] == [3, 6, 6, 3]
