"""What a full disk and a vanished folder cost: a warning, and no more than the state that cannot be kept."""

import contextlib
import dataclasses
import gc
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from test_run_loop import Watched, run, shared_compiler, without_clocks
from tiny import tiny_experiment

from convnext_jax.run import saving
from convnext_jax.run.reporter import Diverged
from convnext_jax.run.saving import SaveFailed
from convnext_jax.workdir.checkpoints import Checkpoints

# TensorStore's, one for each array that could not be written.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # as the commands do
EXPERIMENT = tiny_experiment()  # evaluated and saved after the steps 5, 10, 15 and 20
MEGABYTES = 4


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a failed save leaves behind warns when it is collected: here, and not in whichever test comes later."""
    yield
    gc.collect()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only the superuser may mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    run(EXPERIMENT, workdir)
    return workdir


def run_with(workdir: Path, **before_step: Callable[[], object]) -> None:
    """A run before whose call at a step, ``at_<step>``, something happens."""

    def before(step: int) -> None:
        if action := before_step.get(f"at_{step}"):
            action()

    run(EXPERIMENT, workdir, Watched(before=before, compiler=shared_compiler(EXPERIMENT)))


def fill(disk: Path) -> None:
    deadline = time.monotonic() + 20
    with (disk / "filler").open("ab", buffering=0) as file:
        while shutil.disk_usage(disk).free >= 2**12:  # a save that fails meanwhile removes what it wrote
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(2**12))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def steps(workdir: Path) -> list[int]:
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps()


def warnings_of(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING and what in record.message]


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    small_disk: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
):
    def fill_after_the_save() -> None:
        wait_for(small_disk / "run" / "checkpoints" / "5")
        fill(small_disk)

    run_with(small_disk / "run", at_5=fill_after_the_save, at_15=lambda: (small_disk / "filler").unlink())
    assert 20 in steps(small_disk / "run")
    assert without_clocks(small_disk / "run") == without_clocks(undisturbed)
    (warning,) = warnings_of(caplog, "cannot be saved")
    assert re.search(r"step 10 .* \(No space left on device\): \d+ MiB are needed, 0 MiB are free; the run", warning)
    assert "the checkpoint of step 5 is kept" in warning


def test_a_disk_that_is_filled_during_a_save_costs_nothing(
    small_disk: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(saving, "free_bytes", lambda folder: None)  # as under a quota
    run_with(small_disk / "run", at_5=lambda: fill(small_disk), at_15=lambda: (small_disk / "filler").unlink())
    assert 20 in steps(small_disk / "run")
    assert without_clocks(small_disk / "run") == without_clocks(undisturbed)
    (warning,) = warnings_of(caplog, "cannot be saved")
    assert re.search(r"step (5|10) .* \(No space left on device\): \d+ MiB are needed; the run goes", warning)


def test_a_run_that_ends_on_a_full_disk_fails_and_can_be_finished(small_disk: Path, undisturbed: Path):
    def fill_after_the_save() -> None:
        wait_for(small_disk / "run" / "checkpoints" / "10")
        fill(small_disk)

    with pytest.raises(SaveFailed, match=r"step 20 cannot be saved in .*goes on from step 10"):
        run_with(small_disk / "run", at_10=fill_after_the_save)
    assert steps(small_disk / "run") == [5, 10]
    assert not list((small_disk / "run" / "checkpoints").glob("*tmp*")), "what a failed save left is removed"
    (small_disk / "filler").unlink()
    run(EXPERIMENT, small_disk / "run")
    assert without_clocks(small_disk / "run") == without_clocks(undisturbed)


def test_a_last_state_that_is_saved_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = tmp_path / "checkpoints" / "20"
    monkeypatch.setattr(saving, "free_bytes", lambda folder: 0 if saved.exists() else None)
    run(EXPERIMENT, tmp_path)
    assert (tmp_path / "summary.json").exists()


def test_a_folder_that_is_away_for_a_while_costs_nothing(
    tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
):
    workdir, away = tmp_path / "run", tmp_path / "away"

    def vanish() -> None:
        wait_for(workdir / "checkpoints" / "5")
        workdir.rename(away)

    run_with(workdir, at_5=vanish, at_10=lambda: away.rename(workdir))
    assert steps(workdir) == steps(undisturbed), "what is kept, and what is not, is as ever"
    assert without_clocks(workdir) == without_clocks(undisturbed)
    assert len(warnings_of(caplog, "cannot be saved")) == 1
    assert len(warnings_of(caplog, "metrics.jsonl cannot be written (")) == 1


def test_a_folder_that_was_removed_is_not_made_again(tmp_path: Path):
    workdir = tmp_path / "run"

    def remove() -> None:
        wait_for(workdir / "checkpoints" / "10")
        shutil.rmtree(workdir)

    with pytest.raises(SaveFailed, match=r"step 20 cannot be saved in .*config\.json is gone.*goes on from step 0"):
        run_with(workdir, at_10=remove)
    assert not workdir.exists()


def test_a_finished_run_that_lost_its_log_still_has_its_figures(tmp_path: Path, undisturbed: Path):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    expected = run(EXPERIMENT, workdir)["final"]
    (workdir / "metrics.jsonl").unlink()
    assert run(EXPERIMENT, workdir)["final"] == pytest.approx(expected)


def test_a_divergence_after_a_save_that_failed_is_said_as_ever(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(saving, "free_bytes", lambda folder: None)  # as under a quota

    def diverge(state: Any) -> Any:
        broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.params)
        return dataclasses.replace(state, params=broken) if int(state.step) == 10 else state

    compiler = Watched(
        before=lambda step: fill(small_disk) if step == 5 else None,
        after=diverge,
        compiler=shared_compiler(EXPERIMENT),
    )
    with pytest.raises(Diverged, match="the test loss is nan at step 10, .*there is no checkpoint yet"):
        run(EXPERIMENT, small_disk / "run", compiler)
    assert len(warnings_of(caplog, "step 5 cannot be saved")) == 1
