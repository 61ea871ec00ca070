"""The validation split: fixed, stratified, held out of train, and what a training evaluates instead of test."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from convnext_jax.data.validation import hold_out_validation
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.config import DataConfig
from convnext_jax.data import Dataset, Split, load
from convnext_jax.errors import UserError
from convnext_jax.evaluate import offline
from convnext_jax.run import loop
from convnext_jax.run import prepare as preparation
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.workdir.metrics_log import read_metrics
from convnext_jax.workdir.records import DatasetRecord, claim


def split_tiny(fraction: float = 0.2) -> Dataset:
    dataset = tiny_dataset()
    return hold_out_validation(dataset, fraction, [str(index) for index in range(len(dataset.train))])


def test_every_example_is_in_one_split_and_every_class_in_both():
    before, dataset = tiny_dataset(), split_tiny()
    assert dataset.validation is not None and dataset.evaluated == ("validation", dataset.validation)
    assert before.evaluated == ("test", before.test)
    assert np.bincount(dataset.train.labels).tolist() == [8] * 4
    assert np.bincount(dataset.validation.labels).tolist() == [2] * 4
    images = [image.tobytes() for split in (dataset.train, dataset.validation) for image in split.images]
    assert sorted(images) == sorted(image.tobytes() for image in before.train.images)
    places = {image.tobytes(): place for place, image in enumerate(before.train.images)}
    for split in (dataset.train, dataset.validation):
        found = [places[image.tobytes()] for image in split.images]
        assert found == sorted(found) and before.train.labels[found].tolist() == split.labels.tolist()
        assert not split.images.flags.writeable and not split.labels.flags.writeable
    np.testing.assert_array_equal(dataset.test.images, before.test.images)


def test_the_statistics_are_those_of_the_images_that_are_trained_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("convnext_jax.data.validation._CHUNK", 5)
    dataset = split_tiny()
    scaled = dataset.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-6)


def test_a_class_of_one_example_is_refused():
    dataset = tiny_dataset()
    train = Split(dataset.train.images[:5], dataset.train.labels[:5])
    with pytest.raises(UserError, match=r"validation_fraction=0\.5: class class 1 of tiny has one training example"):
        hold_out_validation(dataclasses.replace(dataset, train=train), 0.5, list("abcde"))


def test_the_digits_held_out_never_change():
    whole = load(DataConfig(name="digits", image_size=8))
    dataset = load(DataConfig(name="digits", image_size=8, validation_fraction=0.2))
    assert whole.validation is None and dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1151, 287, 359)
    np.testing.assert_array_equal(dataset.test.images, whole.test.images)
    digest = hashlib.sha256(dataset.validation.images[..., 0].tobytes()).hexdigest()
    assert digest == "ea6144e8d2b1f45bb7c1cc74cac64e81c3cac196c8b15650847f6c6eaa414f88"


# The network of the other tests, so that what they compiled serves here too.
DATASET = tiny_dataset()
EXPERIMENT = tiny_experiment()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Four epochs of five steps, with a validation split and no test split to look at."""
    workdir = tmp_path_factory.mktemp("run")
    dataset = dataclasses.replace(DATASET, validation=DATASET.test, test=cast(Split, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "model_from_config", lambda *arguments, seed, **names: tiny_model(seed=seed))
        claim(workdir, EXPERIMENT)
        DatasetRecord.of(dataset).write(workdir)
        with TrainPrograms() as programs:
            return workdir, loop.train(EXPERIMENT, dataset, workdir, make_mesh(jax.devices()[:1]), programs)


def test_training_evaluates_it_and_says_so(trained: tuple[Path, dict[str, Any]]):
    workdir, summary = trained
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "validation/top1" in line]
    names = {f"{split}/{name}" for split in ("validation", "validation_ema") for name in ("loss", "top1", "top5")}
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert all({name for name in line if "/" in name} == names for line in lines)
    assert summary["split"] == "validation" and names < summary["final"].keys() == summary["best"].keys()
    assert summary["validation_examples"] == 13 and summary["train_examples"] == 40
    assert not any(name.startswith("test") for name in (*summary, *summary["final"]))
    with loop.Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.metrics(20).keys() == names
    assert (workdir / "curves.png").exists()
    (events,) = (workdir / "tensorboard").iterdir()
    assert b"validation/top1" in events.read_bytes() and b"test/" not in events.read_bytes()


@pytest.fixture
def on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three splits of the same images, of which one alone has their own labels."""
    others = [Split(DATASET.test.images, (DATASET.test.labels + shift) % 4) for shift in (1, 2)]
    dataset = dataclasses.replace(DATASET, validation=DATASET.test, test=others[0], train=others[1])
    monkeypatch.setattr(offline, "model_from_config", lambda *arguments, **names: tiny_model())
    monkeypatch.setattr(offline, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(offline.data, "load", lambda config: dataset)


@pytest.mark.usefixtures("on_this_machine")
def test_offline_evaluation_reads_the_split_that_it_is_told(trained: tuple[Path, dict[str, Any]]):
    workdir, summary = trained
    of = {split: offline.evaluate_workdir(workdir, split=split) for split in ("validation", "test", "train")}
    assert of["validation"]["top1"] == summary["final"]["validation/top1"]
    assert of["validation"]["loss"] == pytest.approx(summary["final"]["validation/loss"], rel=1e-6)
    assert len({round(figures["loss"], 3) for figures in of.values()}) == 3
    assert all(figures["split"] == split and figures["examples"] == 13 for split, figures in of.items())


@pytest.mark.usefixtures("on_this_machine")
def test_offline_evaluation_scales_its_images_as_the_training_did(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    sizes = []
    monkeypatch.setattr(offline, "evaluate_split", lambda *_, image_size, **__: sizes.append(image_size) or {})
    offline.evaluate_workdir(trained[0])
    experiment = dataclasses.replace(EXPERIMENT, run=dataclasses.replace(EXPERIMENT.run, image_sizes=(16, 24)))
    monkeypatch.setattr(offline, "read_experiment", lambda _: experiment)
    offline.evaluate_workdir(trained[0])
    assert sizes == [None, 24]


@pytest.mark.usefixtures("on_this_machine")
@pytest.mark.parametrize(
    ("fraction", "message"),
    [(0.0, r"fraction=0\); take test or train"), (0.1, r"fraction=0\.1; without a folder to test on the share is the")],
)
def test_a_validation_split_that_is_not_there_is_refused(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, fraction: float, message: str
):
    data = DataConfig(name="image_folder", validation_fraction=fraction)
    monkeypatch.setattr(offline, "read_experiment", lambda _: dataclasses.replace(tiny_experiment(), data=data))
    monkeypatch.setattr(offline.data, "load", lambda config: tiny_dataset())
    with pytest.raises(UserError, match=f"--split validation: the run in .* has no validation split .*{message}"):
        offline.evaluate_workdir(trained[0], split="validation")
