"""The cache of decoded images: whole or not there, made once, and found again."""

import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convnext_jax.data.cache import DESCRIPTION, FORMAT, CacheKey, build_cache, open_cache
from convnext_jax.data.dataset import PixelSums
from convnext_jax.data.decode import Mask, Picture
from convnext_jax.data.decode_masked_split import decode_masked_split
from convnext_jax.data.decode_split import CHUNK, SERIAL_BELOW, decode_split
from convnext_jax.data.mask_classes import MaskClasses
from convnext_jax.errors import UserError
from convnext_jax.storage.files import is_writable


@dataclasses.dataclass(frozen=True)
class RandomPictures:
    """Random PNGs that are functions of (seed, index).

    Attributes:
      seed: of the pixels.
      count: how many there are.
      channels: channels of the pictures.
      journal: a file that gets a line, the number of the process, for each picture that is read.
      seconds: what a read takes.
      broken: index of a picture that is none.
    """

    seed: int
    count: int = 5
    channels: int = 3
    journal: Path | None = None
    seconds: float = 0.0
    broken: int | None = None

    def __len__(self) -> int:
        return self.count

    def pixels(self, index: int) -> np.ndarray:
        return np.random.default_rng([self.seed, index]).integers(0, 256, (6, 6, self.channels), np.uint8)

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        for index in range(start, stop):
            if self.journal is not None:
                with self.journal.open("a") as journal:
                    journal.write(f"{os.getpid()}\n")
            time.sleep(self.seconds)
            buffer = io.BytesIO()
            Image.fromarray(self.pixels(index).squeeze()).save(buffer, "png")
            yield Picture(str(index), b"broken" if index == self.broken else buffer.getvalue(), index % 3)


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
    assert _folders(key) == [key.folders()[0].name], "nothing temporary stays"


# --- many pictures are decoded by several processes

MANY = SERIAL_BELOW + 100
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
several_cores = pytest.mark.skipif(CORES < 2, reason="one core decodes alone")


@several_cores
def test_a_pool_of_processes_decodes_the_same(tmp_path: Path) -> None:
    many = RandomPictures(2, MANY, journal=tmp_path / "journal")
    labels, sums = decode_split(many, tmp_path / "many.npy", None, 3, "many")
    assert set((tmp_path / "journal").read_text().split()) > {str(os.getpid())}
    images = np.load(tmp_path / "many.npy")
    np.testing.assert_array_equal(images, np.stack([many.pixels(index) for index in range(MANY)]))
    np.testing.assert_array_equal(labels, np.arange(MANY) % 3)
    assert sums == PixelSums.of(images)


def test_a_channel_of_one_value_can_be_normalized() -> None:
    images = np.stack([np.array([[0, 255]], np.uint8), np.full((1, 2), 255, np.uint8)], -1)
    mean, std = PixelSums.of(images).mean_and_std()
    assert mean.tolist() == [0.5, 1.0] and std.tolist() == [0.5, 1.0]


@several_cores
def test_an_error_reaches_us_from_another_process(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="picture 700 cannot be read"):
        decode_split(RandomPictures(2, MANY, broken=700), tmp_path / "many.npy", None, 3, "many")


@several_cores
def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib\n"
        "print('once')\n"
        "from convnext_jax.data.decode_split import decode_split\n"
        "from test_data_cache import RandomPictures\n"
        f"labels, _ = decode_split(RandomPictures(0, {MANY}), pathlib.Path('images.npy'), None, 3, 'x')\n"
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
    assert done.stdout == f"once\n{MANY}\n", done.stderr
    assert not done.stderr


@several_cores
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_the_processes_that_decode_end_with_one_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib\n"
        "from convnext_jax.data.decode_split import decode_split\n"
        "from test_data_cache import RandomPictures\n"
        f"source = RandomPictures(0, {MANY}, journal=pathlib.Path('journal'), seconds=0.1)\n"
        "decode_split(source, pathlib.Path('images.npy'), None, 3, 'x')\n"
    )
    tests, journal = Path(__file__).resolve().parent, tmp_path / "journal"
    environment = os.environ | {"PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    deadline, decoding = time.monotonic() + 60, set()
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True) as parent:
        while not decoding and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            pids = set(map(int, journal.read_text().split())) if journal.exists() else set()
            decoding = pids - {parent.pid}
        parent.kill()
    try:
        assert decoding
        deadline = time.monotonic() + 20  # its pictures would take a process 50 seconds
        while any(map(_runs, decoding)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(_runs, decoding))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- a cache is whole or not there


def test_a_full_disk_is_told_beforehand(key: CacheKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=100))
    with pytest.raises(UserError, match="needs 540 bytes in .*, and 100 are free: make room there"):
        build_cache(key, SOURCES, NAMES)


def _build(key: CacheKey, journal: Path, done: "multiprocessing.Queue[list[int]]") -> None:
    train, test = SOURCES["train"], SOURCES["test"]
    sources = {"train": dataclasses.replace(train, journal=journal, seconds=0.02), "test": test}
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


def _folders(key: CacheKey) -> list[str]:
    return sorted(path.name for path in key.source.iterdir() if path.is_dir())


def test_a_killed_process_does_no_harm(key: CacheKey, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    journal = tmp_path / "journal"
    slow = SOURCES | {"train": RandomPictures(0, journal=journal, seconds=60.0)}
    process = context.Process(target=build_cache, args=(key, slow, NAMES))
    process.start()
    while process.is_alive() and not journal.exists():
        time.sleep(0.02)
    process.kill()
    process.join()
    assert len(_folders(key)) == 1 and open_cache(key) is None, "half a cache is left behind, and is not taken for one"
    dataset = build_cache(key, SOURCES, NAMES)
    np.testing.assert_array_equal(dataset.train.images[4], SOURCES["train"].pixels(4))
    assert _folders(key) == [key.folders()[0].name]


def test_a_failure_leaves_no_cache(key: CacheKey) -> None:
    with pytest.raises(UserError, match="labels from 0 to 2, and there are 2 classes"):
        build_cache(key, SOURCES, NAMES[:2])
    assert _folders(key) == []


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


def test_a_cache_of_another_decoder_is_not_used_and_goes(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    folder = key.folders()[0]
    before = folder.rename(folder.with_name(folder.name.removesuffix(f"-v{FORMAT}") + f"-v{FORMAT - 1}"))
    kept = folder.with_name(folder.name.replace("native", "64"))
    kept.mkdir()
    assert open_cache(key) is None
    build_cache(key, SOURCES, NAMES)
    assert folder.is_dir() and kept.is_dir() and not before.exists()


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
    with pytest.raises(UserError, match="can be written neither to .* nor to .*: set XDG_CACHE_HOME"):
        build_cache(key, SOURCES, NAMES)
    with pytest.raises(UserError, match="example cannot be written to .*cache.*: set XDG_CACHE_HOME"):
        build_cache(dataclasses.replace(key, beside_source=False), SOURCES, NAMES)


def test_a_folder_of_the_users_own_stays_as_it_is(key: CacheKey, tmp_path: Path) -> None:
    own = dataclasses.replace(key, beside_source=False)
    before = own.source.stat()
    dataset = build_cache(own, SOURCES, NAMES)
    assert isinstance(dataset.train.images, np.memmap)
    assert str(dataset.train.images.filename).startswith(str(tmp_path / "cache" / "convnext_jax"))
    assert not list(own.source.iterdir()) and own.source.stat().st_mtime_ns == before.st_mtime_ns
    assert open_cache(own) is not None and open_cache(key) is not None, "found again, wherever it may be"


def test_the_size_and_the_channels_are_part_of_the_name(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    for changes, shape in (({"image_size": 4}, (5, 4, 4, 3)), ({"channels": 1}, (5, 6, 6, 1))):
        other = dataclasses.replace(key, **changes)
        assert open_cache(other) is None
        assert build_cache(other, SOURCES, NAMES).train.images.shape == shape
    native = open_cache(key)
    assert native is not None and native.train.images.shape == (5, 6, 6, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_are_kept_in_their_own_channels(key: CacheKey, channels: int) -> None:
    sources = {"train": RandomPictures(0, 5, channels), "test": RandomPictures(1, 3, channels)}
    dataset = build_cache(dataclasses.replace(key, channels=channels), sources, NAMES)
    expected = np.stack([sources["train"].pixels(index) for index in range(5)])
    np.testing.assert_array_equal(dataset.train.images, expected)
    np.testing.assert_allclose(dataset.mean, expected.mean((0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(dataset.std, expected.std((0, 1, 2)) / 255, rtol=1e-6)


# --- masks


@dataclasses.dataclass(frozen=True)
class RandomPairs(RandomPictures):
    """Pictures with masks, whose values are `factor` times the numbers 0 to 2."""

    factor: int = 1

    def mask(self, index: int) -> np.ndarray:
        return self.pixels(index)[..., 0] % 3 * np.uint8(self.factor)

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        for index, picture in enumerate(super().read(start, stop), start):
            buffer = io.BytesIO()
            Image.fromarray(self.mask(index)).save(buffer, "png")
            yield picture._replace(mask=Mask(f"mask {index}", buffer.getvalue()))


PAIRS = {"train": RandomPairs(0), "test": RandomPairs(1, 3)}


def test_masks_are_cached_beside_a_cache_without_them(key: CacheKey) -> None:
    build_cache(key, PAIRS, NAMES)
    masked = dataclasses.replace(key, masks=MaskClasses())
    assert open_cache(masked) is None
    build_cache(masked, PAIRS, NAMES)
    dataset, without = open_cache(masked), open_cache(key)
    assert dataset is not None and without is not None
    assert dataset.mask_names == ("0", "1", "2") and dataset.class_names == NAMES and without.mask_names == ()
    for name, split in dataset.splits.items():
        assert split.masks is not None and isinstance(split.masks, np.memmap) and not split.masks.flags.writeable
        np.testing.assert_array_equal(split.masks, np.stack(list(map(PAIRS[name].mask, range(len(split))))))
        np.testing.assert_array_equal(split.images, without.splits[name].images)
        assert without.splits[name].masks is None
    # What a cache without masks holds has not changed, so that earlier ones are still valid.
    folder = key.folders()[0]
    assert folder.name == f"convnext_jax_cache-native-v{FORMAT}" and FORMAT == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        *("dataset.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy"),
    ]
    meta = json.loads((folder / DESCRIPTION).read_text())
    assert sorted(meta) == ["class_names", "fingerprint", "mean", "name", "shapes", "source", "std"]
    assert len(meta["shapes"]) == 4


def test_values_become_class_numbers(key: CacheKey) -> None:
    sources = {name: dataclasses.replace(source, factor=1) for name, source in PAIRS.items()}
    classes = MaskClasses(("b", "c"), lowest=1, remedy="mend it")
    with pytest.raises(UserError, match=r"^mask mask 0 has the value 0, and the classes are 1 to 2 .*: mend it$"):
        build_cache(dataclasses.replace(key, masks=classes), sources, NAMES)
    assert _folders(key) == []


def test_masks_that_are_damaged_are_made_again(key: CacheKey, caplog: pytest.LogCaptureFixture) -> None:
    key = dataclasses.replace(key, masks=MaskClasses())
    build_cache(key, PAIRS, NAMES)
    masks = key.folders()[0] / "test_masks.npy"
    np.save(masks, np.zeros((3, 6, 5), np.uint8))
    assert open_cache(key) is None and "test_masks.npy holds uint8 (3, 6, 5)" in caplog.text
    dataset = build_cache(key, PAIRS, NAMES)
    assert dataset.test.masks is not None
    np.testing.assert_array_equal(dataset.test.masks[2], PAIRS["test"].mask(2))


def test_masks_take_part_of_the_disk(key: CacheKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=600))
    with pytest.raises(UserError, match="needs 720 bytes in .*, and 600 are free"):
        build_cache(dataclasses.replace(key, masks=MaskClasses()), PAIRS, NAMES)


@several_cores
def test_a_pool_of_processes_decodes_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = RandomPairs(3, CHUNK + 10, journal=tmp_path / "journal")
    alone = decode_masked_split(pairs, tmp_path / "images.npy", tmp_path / "masks.npy", None, 3, "pairs")
    assert alone.uses == {0: 0, 1: 0, 2: 0}, "the first picture of all, not of the last chunk"
    monkeypatch.setattr("convnext_jax.data.decode_split.SERIAL_BELOW", 0)
    decoded = decode_masked_split(pairs, tmp_path / "images.npy", tmp_path / "masks.npy", None, 3, "pairs")
    assert set((tmp_path / "journal").read_text().split()) > {str(os.getpid())}
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy"), np.stack(list(map(pairs.mask, range(len(pairs))))))
    np.testing.assert_array_equal(decoded.labels, np.arange(len(pairs)) % 3)
    assert decoded.uses == alone.uses
    assert decoded.sums == PixelSums.of(np.load(tmp_path / "images.npy"))


def test_the_description_tells_what_is_there(key: CacheKey) -> None:
    build_cache(key, SOURCES, NAMES)
    meta = json.loads((key.folders()[0] / DESCRIPTION).read_text())
    assert meta["class_names"] == list(NAMES) and meta["shapes"]["test_images"] == [3, 6, 6, 3]
