"""A workdir belongs to one configuration."""

import dataclasses
from pathlib import Path

import pytest

from convnext_jax.config import DataConfig, Experiment, RunConfig
from convnext_jax.errors import UserError
from convnext_jax.workdir.records import DatasetRecord, claim, default_workdir, read_experiment, seed_runs

ONE = Experiment(run=RunConfig(epochs=10))
RECORD = DatasetRecord("x", ("a", "b"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_name_follows_the_configuration_and_not_where_the_data_lie():
    moved = dataclasses.replace(ONE, data=DataConfig(data_dir="/elsewhere", manual_dir="/archives"))
    longer = dataclasses.replace(ONE, run=RunConfig(epochs=11))
    name = default_workdir("configs/x.py", ONE)
    assert name.parent == Path("runs") and name.name.startswith("x-")
    assert default_workdir("configs/x.py:argument", moved) == name
    assert default_workdir("configs/x.py", longer) != name


def test_a_workdir_is_claimed_again_by_the_same_configuration(tmp_path: Path):
    claim(tmp_path / "a" / "b", ONE)
    assert read_experiment(tmp_path / "a" / "b") == ONE
    moved = dataclasses.replace(ONE, data=DataConfig(data_dir="/elsewhere"))
    claim(tmp_path / "a" / "b", moved)
    assert read_experiment(tmp_path / "a" / "b") == moved


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path):
    claim(tmp_path, ONE)
    RECORD.write(tmp_path)
    other = dataclasses.replace(ONE, run=RunConfig(epochs=11, seed=3))
    with pytest.raises(UserError, match=r"run\.seed: 0 there, 3 now; run\.epochs: 10 there, 11 now.*another --workdir"):
        claim(tmp_path, other)
    assert read_experiment(tmp_path) == ONE


def test_several_seeds_have_a_folder_each(tmp_path: Path):
    assert seed_runs(tmp_path, ONE) == [(tmp_path, ONE)]
    three = dataclasses.replace(ONE, run=RunConfig(epochs=10, seed=5, seeds=3))
    assert seed_runs(tmp_path, three) == [
        (tmp_path / f"seed_{seed}", dataclasses.replace(ONE, run=RunConfig(epochs=10, seed=seed))) for seed in (5, 6, 7)
    ]


def test_a_start_that_was_refused_binds_nobody(tmp_path: Path):
    claim(tmp_path, ONE)
    mended = dataclasses.replace(ONE, data=DataConfig(image_size=32))
    claim(tmp_path, mended)
    assert read_experiment(tmp_path) == mended


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be written .*choose another --workdir"):
        claim(tmp_path / "file" / "run", ONE)


def test_what_is_no_workdir_is_said_so(tmp_path: Path):
    with pytest.raises(UserError, match="is no workdir of train.py"):
        read_experiment(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        read_experiment(tmp_path)
    with pytest.raises(UserError, match=r"dataset\.json cannot be read"):
        DatasetRecord.read(tmp_path)


def test_the_record_of_the_data_comes_back(tmp_path: Path):
    RECORD.write(tmp_path)
    assert DatasetRecord.read(tmp_path) == RECORD
