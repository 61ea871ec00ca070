"""Model soups: the mean of the last checkpoints, evaluated exactly and fit to start from."""

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import NUM_CLASSES, tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.batches.evaluation import put_batches
from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate.soup import make_soup
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import load_model, split_model
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.weights import ModelFolder, start_from
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tasks.classification import Classification
from convnext_jax.tools import soup as tool
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

DATASET = tiny_dataset()
RECORD = DatasetRecord.of(DATASET)
STEPS = (5, 10, 15, 20)


@functools.cache
def parameters(seed: int) -> Any:
    return split_model(tiny_model(seed=seed))[1]


def write_run(workdir: Path, experiment: Experiment) -> Path:
    """Four checkpoints, each of the model that its step is the seed of; all are kept."""
    write_claim(workdir, experiment)
    RECORD.write(workdir)
    with Checkpoints(workdir / "checkpoints", keep_latest=len(STEPS)) as checkpoints:
        for step in STEPS:
            checkpoints.save(step, {"params": parameters(step)}, {"test/top1": 0.5})
    return workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), tiny_experiment(keep_latest=3))


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.data.load", lambda config: DATASET)


def test_it_is_the_mean_of_the_last_checkpoints(workdir: Path):
    soup, report = make_soup(workdir, last=3)
    definition, fresh, _ = split_model(tiny_model())
    trees = [parameters(step) for step in (10, 15, 20)]
    expected = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), 0).astype(np.float32), *trees)
    for ours, theirs in zip(*map(jax.tree.leaves, (soup.params, expected)), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
    sharding = Sharding(make_mesh())
    figures = evaluate_split(
        definition,
        jax.device_put(expected, sharding.replicated),
        {},
        put_batches(DATASET.test, 500, sharding),
        task=Classification(NUM_CLASSES),
        normalization=RECORD.normalization,
        sharding=sharding,
    )
    assert {name: report[name] for name in figures} == pytest.approx(figures, rel=1e-6)
    assert report["checkpoints"] == [10, 15, 20] and report["split"] == "test" and report["weights"] == "soup"
    architecture = tiny_experiment().model.architecture
    assert start_from(soup, architecture, fresh, {})[2] == [], "nothing of it is drawn afresh"


def test_the_command_writes_weights_that_say_what_they_are(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command = ["soup", "--workdir", str(workdir), "--last", "2", "--output", str(tmp_path / "soup")]
    monkeypatch.setattr(sys, "argv", command)
    tool.main()
    report = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert report["checkpoints"] == [15, 20] and report["examples"] == 13
    assert f"--config.model.init_from={tmp_path / 'soup'}" in capsys.readouterr().out
    made = make_soup(workdir, last=2)[0]
    # The folder alone builds the network, whose fields are not those of its name, and says how to feed it.
    model, folder = load_model(tmp_path / "soup")
    assert model.architecture == tiny_experiment().model.architecture
    assert folder.source == f"the mean of the checkpoints at steps 15, 20 of {workdir}"
    assert (folder.class_names, folder.mean, folder.std) == (RECORD.class_names, RECORD.mean, RECORD.std)
    for ours, theirs in zip(*map(jax.tree.leaves, (split_model(model)[1], made.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="soup exists already; choose another --output"):
        tool.main()


def refuse(workdir: Path, message: str, **names: Any) -> None:
    with pytest.raises(UserError, match=message):
        make_soup(workdir, **({"last": 3} | names))


def test_checkpoints_that_are_not_there_are_refused(workdir: Path):
    remedy = r"train with --config\.run\.keep_latest=4, or take fewer$"
    # The fourth is there by chance: what is kept beyond keep_latest may be the best of long ago.
    refuse(workdir, r"--last 4: .* has 4 evaluated checkpoints and keeps the latest 3; " + remedy, last=4)


def test_too_few_evaluations_are_not_blamed_on_what_is_kept(tmp_path: Path):
    found = r"--last 6: .* has 4 evaluated checkpoints and keeps the latest 9; "
    for every, remedy in ((2, r"a lower config\.run\.eval_every_epochs"), (1, r"more config\.run\.epochs")):
        run = write_run(tmp_path / str(every), tiny_experiment(keep_latest=9, eval_every_epochs=every))
        refuse(run, f"{found}train with {remedy}, or take fewer$", last=6)
    for step in STEPS[1:]:
        shutil.rmtree(tmp_path / "2" / "checkpoints" / str(step))
    refuse(tmp_path / "2", r"has 1 evaluated checkpoint and keeps .* config\.run\.eval_every_epochs$", last=2)


def test_batch_norm_is_refused(tmp_path: Path):
    experiment = tiny_experiment(ResNetArchitecture((1,), block="basic", width=8))
    resnet = dataclasses.replace(experiment.model, name="resnet18")
    run = write_run(tmp_path, dataclasses.replace(experiment, model=resnet))
    refuse(run, r"the model resnet18 has BatchNorm, and the mean of its running statistics would not")


def test_the_folder_of_several_seeds_is_refused(tmp_path: Path):
    write_claim(tmp_path, tiny_experiment(seeds=3, seed=7))
    refuse(tmp_path, r"holds 3 seeds, and a soup is of one run's checkpoints; take one of them: --workdir .*/seed_7")


def test_a_folder_of_version_1_is_still_read(tmp_path: Path):
    ModelFolder(parameters(5), {}, "convnext_atto", {}, ("a",) * 4, (0.5,) * 3, (0.25,) * 3, "x").write(tmp_path / "w")
    card = {"model": "convnext_atto", "stem": "patch2", "num_classes": 4, "source": "a test"}
    (tmp_path / "w" / "model.json").write_text(json.dumps(card))
    (tmp_path / "w" / "checksums.json").unlink()  # version 1 wrote none
    folder = ModelFolder.read(tmp_path / "w")
    assert (folder.architecture, len(folder.class_names), folder.source) == ({"stem": "patch2"}, 4, "a test")
