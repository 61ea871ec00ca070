"""Files that appear whole or not at all, and work that one process does while the others wait."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.data.cache import CacheKey
from convnext_jax.errors import UserError
from convnext_jax.storage.files import (
    exclusive,
    expanded,
    is_writable,
    new_folder,
    sweep,
    user_cache_folder,
    write_json,
    write_text,
)

# --- files


def test_a_text_takes_the_place_of_the_one_before(tmp_path: Path):
    path = tmp_path / "note.txt"
    for text in ("first\n", "Grüße\n", ""):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_as_json_is_read_again(tmp_path: Path):
    content = {"name": "cifar10", "sizes": [32, 32], "inner": {"none": None}}
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text()) == content


def test_the_old_content_stays_if_writing_fails(tmp_path: Path):
    text, record = tmp_path / "note.txt", tmp_path / "record.json"
    write_text(text, "old")
    write_json(record, {"old": 1})
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_text(text, "new " * 100_000 + "\udce9")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(record, {"new": object()})
    assert text.read_text() == "old" and json.loads(record.read_text()) == {"old": 1}
    assert sorted(tmp_path.iterdir()) == [text, record]  # and nothing half-written lies beside it


def test_a_file_of_a_folder_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_text(tmp_path / "nowhere" / "note.txt", "text")


# --- folders


def test_a_folder_appears_once_it_is_complete(tmp_path: Path):
    path = tmp_path / "above" / "complete"
    with new_folder(path) as unfinished:
        (unfinished / "one").write_text("1")
        assert not path.exists()
        (unfinished / "two").write_text("2")
    assert sorted(file.name for file in path.iterdir()) == ["one", "two"]
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_fails_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(RuntimeError, match="half way"), new_folder(tmp_path / "complete") as unfinished:
        (unfinished / "one").write_text("1")
        raise RuntimeError("half way")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_already_is_kept(tmp_path: Path):
    (tmp_path / "complete").mkdir()
    (tmp_path / "complete" / "old").write_text("old")
    with pytest.raises(OSError, match="complete"), new_folder(tmp_path / "complete") as unfinished:
        (unfinished / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["complete", "old"]


def test_what_matches_is_swept_away(tmp_path: Path):
    (tmp_path / ".x.tmp-1").mkdir()
    (tmp_path / ".x.tmp-1" / "file").write_text("")
    (tmp_path / ".x.tmp-2").write_text("")
    (tmp_path / "kept").write_text("")
    sweep(tmp_path, ".x.tmp-*")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_that_nobody_may_write_to_is_not_writable(tmp_path: Path):
    assert is_writable(tmp_path) and is_writable(tmp_path / "not" / "there" / "yet")
    (tmp_path / "file").write_text("")
    assert not is_writable(tmp_path / "file")
    tmp_path.chmod(0o555)
    assert not is_writable(tmp_path) and not is_writable(tmp_path / "not" / "there" / "yet")


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache_folder() == tmp_path / "cache" / "convnext_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert user_cache_folder() == tmp_path / "home" / ".cache" / "convnext_jax"


# --- one process at a time


def hold(path: Path, journal: Path, seconds: float) -> None:
    """Holds a lock and notes when."""
    with exclusive(path):
        with journal.open("a") as file:
            file.write("begin\n")
        time.sleep(seconds)
        with journal.open("a") as file:
            file.write("end\n")


def test_a_second_process_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lock, journal = tmp_path / "above" / "lock", tmp_path / "journal"
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(lock, journal, 1.5))
    process.start()
    while process.is_alive() and not journal.exists():
        time.sleep(0.01)
    hold(lock, journal, 0.0)
    process.join()
    assert process.exitcode == 0
    assert journal.read_text().split() == ["begin", "end"] * 2
    assert f"waiting for another process that holds {lock}" in caplog.text


def test_a_killed_process_holds_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lock, journal = tmp_path / "lock", tmp_path / "journal"
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(lock, journal, 60.0))
    process.start()
    while process.is_alive() and not journal.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    hold(lock, journal, 0.0)
    assert journal.read_text().split() == ["begin", "begin", "end"]
    assert not caplog.text


def test_an_error_releases_the_lock(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with pytest.raises(RuntimeError, match="inside"), exclusive(tmp_path / "lock"):
        raise RuntimeError("inside")
    with exclusive(tmp_path / "lock"):
        assert not caplog.text


# --- home folders


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the numeric user of a container: no HOME, and no entry in the list of users."""
    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def getpwuid(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", getpwuid)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/data") == tmp_path / "data" and expanded("a/~") == Path("a/~")


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_one_is_asked_for(tmp_path: Path):
    assert expanded(str(tmp_path)) == tmp_path
    with pytest.raises(UserError, match=r"^~/data: no home folder is known for ~; .*set HOME"):
        expanded("~/data")
    with pytest.raises(UserError, match="set HOME or XDG_CACHE_HOME"):
        user_cache_folder()
    for config in (DataConfig("cifar100"), DataConfig("image_folder", "~/p"), DataConfig("cifar100", "/", "~/p")):
        with pytest.raises(UserError, match="no home folder is known for ~"):
            load(config)


def test_a_user_who_does_not_exist_has_no_home_folder():
    with pytest.raises(UserError, match=r"no home folder is known for ~nobody-of-that-name"):
        load(DataConfig("cifar100", "~nobody-of-that-name/data"))


@pytest.mark.usefixtures("no_home")
def test_data_that_keep_their_own_cache_need_no_home_folder(tmp_path: Path):
    assert [folder.parent for folder in CacheKey("cifar100", tmp_path, "1", None).folders()] == [tmp_path]
    with pytest.raises(UserError, match="set HOME or XDG_CACHE_HOME"):
        CacheKey("image_folder", tmp_path, "1", None, beside_source=False).folders()
