"""Nothing damaged is believed: each file of a checkpoint damaged in each way."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_run_loop import run, without_clocks
from test_workdir_checkpoints import figures, items_at
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import Selection, evaluate_workdir
from convnext_jax.workdir.checkpoint_folder import set_damaged_aside
from convnext_jax.workdir.checkpoints import Checkpoints


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda path, other: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path, other: path.write_bytes(b""),
    "removed": lambda path, other: path.unlink(),
    "flipped": lambda path, other: flip(path),
    "exchanged": lambda path, other: shutil.copy(other, path),
    "a folder": lambda path, other: (path.unlink(), path.mkdir()),
}
# Orbax writes these after the last byte of the arrays; none of them holds an array or decides what is restored.
UNVERIFIED = ("_CHECKPOINT_METADATA", "commit_success.txt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the steps 10 and 20."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(directory, keep_latest=2) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, items_at(step), figures(step / 100))
    return directory


def files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checkpoint_before_a_damaged_one_is_taken(saved: Path, tmp_path: Path, damage: str) -> None:
    names = [path.relative_to(saved / "20") for path in files(saved / "20") if path.name not in UNVERIFIED]
    assert len(names) >= 20
    for number, name in enumerate(names):
        directory = tmp_path / str(number) / "checkpoints"
        shutil.copytree(saved, directory)
        # The file of the other checkpoint, or another file of this one.
        others = [saved / "10" / name, *files(saved / "20")]
        content = (saved / "20" / name).read_bytes()
        DAMAGES[damage](
            directory / "20" / name, next(path for path in others if path.is_file() and path.read_bytes() != content)
        )
        notes = set_damaged_aside(directory)
        if name.name == "checksums.json" and damage == "removed":
            assert notes == ["the checkpoint of step 20 has no checksums; it can be read, but not verified"]
            continue
        assert len(notes) == 1 and notes[0].startswith("the checkpoint of step 20 is damaged ("), (name, notes)
        assert name.name in notes[0] or name.name == "checksums.json"
        assert (directory.parent / "damaged_checkpoints" / "20").is_dir()
        assert [path.name for path in directory.iterdir()] == ["10"]
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.latest_step() == 10
        restored = checkpoints.restore(10, items_at(0))
    np.testing.assert_array_equal(restored["params"]["layer"]["kernel"], np.full((2, 3), 10.0))


@pytest.mark.parametrize("name", UNVERIFIED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_orbax_writes_last_is_read_or_set_aside(saved: Path, tmp_path: Path, name: str, damage: str) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    DAMAGES[damage](directory / "20" / name, saved / "20" / "checksums.json")
    notes = set_damaged_aside(directory)
    with Checkpoints(directory) as checkpoints:
        step = checkpoints.latest_step()
        assert step == (10 if notes else 20)
        restored = checkpoints.restore(step, items_at(0))
    np.testing.assert_array_equal(restored["params"]["layer"]["kernel"], np.full((2, 3), float(step)))


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_a_checkpoint_without_checksums_is_read_before_it_is_believed(saved: Path, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    for checksums in directory.glob("*/checksums.json"):
        checksums.unlink()
    array = max(files(directory / "20" / "params"), key=lambda path: path.stat().st_size)
    DAMAGES[damage](array, directory)
    first, second = set_damaged_aside(directory)
    assert first.startswith("the checkpoint of step 20 is damaged (params: ")
    assert second == "the checkpoint of step 10 has no checksums; it can be read, but not verified"


def test_one_of_several_processes_does_not_read_a_checkpoint_alone(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(saved, directory)
    (directory / "20" / "checksums.json").unlink()

    def wait_for_the_others() -> None:
        raise AssertionError

    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer", wait_for_the_others)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    assert "step 20 has no checksums" in " ".join(set_damaged_aside(directory))
    assert sorted(path.name for path in directory.iterdir()) == ["10", "20"]


def test_a_run_goes_on_before_the_damage_and_evaluation_names_the_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_experiment()
    run(experiment, tmp_path)
    log = without_clocks(tmp_path)
    for step in (20, 15):  # one after the other, so that there is one more to name
        flip(max(files(tmp_path / "checkpoints" / str(step) / "params"), key=lambda path: path.stat().st_size))
        if step == 20:
            monkeypatch.setattr("convnext_jax.data.load", lambda config: tiny_dataset())
            with pytest.raises(UserError, match=r"step 20 is damaged \(params/.* has other content .*; choose another"):
                evaluate_workdir(tmp_path)
            assert evaluate_workdir(tmp_path, Selection(step="15"))[0].step == 15
    run(experiment, tmp_path)
    said = capsys.readouterr().err
    assert said.count("is damaged (params/") == 2 and "damaged_checkpoints/15" in said
    assert without_clocks(tmp_path) == log
