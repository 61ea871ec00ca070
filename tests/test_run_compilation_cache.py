"""Compiled programs kept between processes: found again, where the user wants them, and within a limit."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from conftest import ROOT

from convnext_jax.run.compilation_cache import keep_compiled_programs, remove_oldest

# Prints what JAX says of its cache, then a result.
PROGRAM = """
import jax, numpy as np
from convnext_jax.run.compilation_cache import keep_compiled_programs
jax.monitoring.register_event_listener(lambda name, **_: "cache_" in name and print(name.rpartition("/")[2]))
keep_compiled_programs()
print(jax.jit(lambda x: (2 * x @ x.T).sum())(np.eye(3, dtype=np.float32)))
"""


def run(cache_home: Path, **environment: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env |= {
        "XDG_CACHE_HOME": str(cache_home),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=env | environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_a_second_process_takes_the_program_of_the_first(tmp_path: Path):
    folder = tmp_path / "convnext_jax" / "compilation"
    assert run(tmp_path) == ["cache_misses", "6.0"]
    (program,) = folder.iterdir()
    written = program.stat().st_mtime_ns
    assert run(tmp_path) == ["cache_hits", "6.0"]
    assert list(folder.iterdir()) == [program] and program.stat().st_mtime_ns == written


def test_a_folder_that_the_user_gives_to_jax_is_used_as_it_is(tmp_path: Path):
    own = tmp_path / "own"
    assert run(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(own)) == ["cache_misses", "6.0"]
    assert list(own.iterdir()) and not (tmp_path / "home").exists()


# --- the settings, in this process


FOLDER, SHORTEST = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
ENABLED = "jax_enable_compilation_cache"


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """JAX as it is where the user gives it no folder."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, SHORTEST, ENABLED)}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jax.config.update(FOLDER, None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(("before", "after"), [(1.0, 0.1), (0.0, 0.0)])
def test_short_programs_are_kept_too(tmp_path: Path, before: float, after: float):
    jax.config.update(SHORTEST, before)
    keep_compiled_programs()
    assert getattr(jax.config, SHORTEST) == after
    assert getattr(jax.config, FOLDER) == str(tmp_path / "cache" / "convnext_jax" / "compilation")


@pytest.mark.usefixtures("no_settings")
def test_a_cache_that_is_turned_off_stays_off(tmp_path: Path):
    jax.config.update(ENABLED, False)
    keep_compiled_programs()
    assert getattr(jax.config, FOLDER) is None and not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("no_settings")
def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "cache").write_text("a file where the folder should be")
    keep_compiled_programs()
    assert getattr(jax.config, FOLDER) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "compiled programs cannot be kept" in record.getMessage() and "XDG_CACHE_HOME" in record.getMessage()


# --- the limit


def make_file(path: Path, size: int, *, accessed: int, modified: int) -> None:
    path.write_bytes(bytes(size))
    os.utime(path, (accessed, modified))


@pytest.mark.parametrize(
    ("limit", "left"), [(350, "abcd"), (349, "acd"), (250, "acd"), (249, "ad"), (100, "d"), (99, ""), (0, "")]
)
def test_the_least_recently_used_files_are_removed_until_the_limit_holds(tmp_path: Path, limit: int, left: str):
    make_file(tmp_path / "a", 50, accessed=40, modified=5)  # old, and read since
    make_file(tmp_path / "b", 100, accessed=10, modified=10)
    make_file(tmp_path / "c", 100, accessed=10, modified=20)  # where the system notes no reading
    make_file(tmp_path / "d", 100, accessed=50, modified=50)
    remove_oldest(tmp_path, limit)
    assert "".join(sorted(path.name for path in tmp_path.iterdir())) == left


def test_folders_stay_and_the_files_in_them_count(tmp_path: Path):
    (tmp_path / "inner").mkdir()
    make_file(tmp_path / "inner" / "a", 100, accessed=1, modified=1)
    make_file(tmp_path / "b", 100, accessed=2, modified=2)
    os.utime(tmp_path / "inner", (0, 0))
    remove_oldest(tmp_path, 100)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "b", tmp_path / "inner"]


@pytest.mark.usefixtures("no_settings")
def test_a_start_removes_nothing_below_the_limit(tmp_path: Path):
    folder = tmp_path / "cache" / "convnext_jax" / "compilation"
    folder.mkdir(parents=True)
    make_file(folder / "program", 1000, accessed=1, modified=1)
    keep_compiled_programs()
    assert (folder / "program").stat().st_size == 1000
