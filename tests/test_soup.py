"""Model soups: the mean of the last checkpoints, evaluated exactly and fit to start from."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.batches.resident import put_split
from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate import offline
from convnext_jax.evaluate.soup import make_soup
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import split_model
from convnext_jax.models.weights import Pretrained, start_from
from convnext_jax.sharding import make_mesh, replicated
from convnext_jax.tools import soup as tool
from convnext_jax.train.state import init_state
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.records import DatasetRecord, claim

DATASET = tiny_dataset()
STEPS = (5, 10, 15, 20)


@functools.cache
def parameters(seed: int) -> Any:
    return split_model(tiny_model(seed=seed))[1]


def write_run(workdir: Path, experiment: Experiment) -> Path:
    """Four checkpoints, each of the model that its step is the seed of; all are kept."""
    claim(workdir, experiment)
    DatasetRecord.of(DATASET).write(workdir)
    with Checkpoints(workdir / "checkpoints", keep_latest=len(STEPS)) as checkpoints:
        for step in STEPS:
            checkpoints.save(init_state(parameters(step), optax.identity()), step)
    return workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), tiny_experiment(keep_latest=3))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "model_from_config", lambda *arguments, **names: tiny_model())
    monkeypatch.setattr(offline, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(offline.data, "load", lambda config: DATASET)


def test_it_is_the_mean_of_the_last_checkpoints(workdir: Path):
    soup, report = make_soup(workdir, last=3)
    definition, fresh, _ = split_model(tiny_model())
    trees = [parameters(step) for step in (10, 15, 20)]
    expected = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), 0).astype(np.float32), *trees)
    for ours, theirs in zip(*map(jax.tree.leaves, (soup.params, expected)), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
    mesh = make_mesh(jax.devices()[:1])
    figures = evaluate_split(
        definition,
        jax.device_put(expected, replicated(mesh)),
        put_split(DATASET.test, replicated(mesh)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        batch_size=500,
        mesh=mesh,
    )
    assert {name: report[name] for name in figures} == figures
    assert report["checkpoints"] == [10, 15, 20] and report["split"] == "test" and report["weights"] == "soup"
    assert start_from(soup, fresh)[1] == [], "nothing of it is drawn afresh"


def test_the_command_writes_weights_to_start_from_and_a_report(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = ["soup", "--workdir", str(workdir), "--last", "2", "--output", str(tmp_path / "soup")]
    monkeypatch.setattr(sys, "argv", command)
    tool.main()
    report = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert report["checkpoints"] == [15, 20] and report["examples"] == 13
    assert f"--config.model.init_from={tmp_path / 'soup'}" in capsys.readouterr().out
    read, made = Pretrained.read(tmp_path / "soup"), make_soup(workdir, last=2)[0]
    assert read.source == f"the mean of the checkpoints at steps 15, 20 of {workdir}" and read.num_classes == 4
    for ours, theirs in zip(*map(jax.tree.leaves, (read.params, made.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="soup exists already; choose another --output"):
        tool.main()


def refuse(workdir: Path, message: str, **names: Any) -> None:
    with pytest.raises(UserError, match=message):
        make_soup(workdir, **({"last": 3} | names))


def test_checkpoints_that_are_not_there_are_refused(workdir: Path, tmp_path: Path):
    remedy = r"train with --config\.run\.keep_latest={}, or take fewer"
    # The fourth is there by chance: what lies beyond keep_latest may be the best of long ago.
    refuse(workdir, r"--last 4: .* has 4 checkpoints and keeps the latest 3; " + remedy.format(4), last=4)
    many = write_run(tmp_path, tiny_experiment(keep_latest=9))
    refuse(many, r"--last 6: .* has 4 checkpoints and keeps the latest 9; " + remedy.format(6), last=6)


def test_batch_norm_is_refused(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline, "model_from_config", lambda *arguments, **names: tiny_model(norm="batch"))
    refuse(workdir, r"has BatchNorm \(config\.model\.norm\), and the mean of its running statistics would not")


def test_the_folder_of_several_seeds_is_refused(tmp_path: Path):
    claim(tmp_path, tiny_experiment(seeds=3, seed=7))
    refuse(tmp_path, r"holds 3 seeds, and a soup is of one run's checkpoints; take one of them: --workdir .*/seed_7")
