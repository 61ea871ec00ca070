"""Programs kept between processes: found again, whole, and where the user wants them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from conftest import ROOT

from convnext_jax.run.compilation_cache import keep_compiled_programs

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


def programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_a_second_process_takes_the_program_of_the_first_and_replaces_one_that_a_kill_cut_off(tmp_path: Path):
    folder = tmp_path / "convnext_jax" / "compilation"
    assert run(tmp_path) == ["cache_misses", "6.0"]
    (program,) = programs(folder)
    assert run(tmp_path) == ["cache_hits", "6.0"]
    # As after a kill between the first byte and the last.
    program.write_bytes(program.read_bytes()[:100])
    program.with_name(program.name.removesuffix("-cache") + "-atime").unlink()
    assert run(tmp_path) == ["cache_misses", "6.0"]
    assert run(tmp_path) == ["cache_hits", "6.0"]


def test_the_users_own_folder_stands(tmp_path: Path):
    own = tmp_path / "own"
    assert run(tmp_path / "home", JAX_COMPILATION_CACHE_DIR=str(own)) == ["cache_misses", "6.0"]
    assert programs(own) and not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("JAX was told to use it"))
    unset = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True}
    monkeypatch.setattr(type(jax.config), "values", unset)
    with caplog.at_level(logging.WARNING):
        keep_compiled_programs()
    (record,) = caplog.records
    assert "compiled programs cannot be kept" in record.getMessage() and "XDG_CACHE_HOME" in record.getMessage()


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.1), (0.0, 0.0)])
def test_short_programs_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: float, after: float):
    shortest = "jax_persistent_cache_min_compile_time_secs"
    updates: dict[str, object] = {}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    settings = {"jax_compilation_cache_dir": None, "jax_enable_compilation_cache": True, shortest: before}
    monkeypatch.setattr(type(jax.config), "values", settings)
    keep_compiled_programs()
    assert updates[shortest] == after and updates["jax_compilation_cache_dir"]
