"""The validation split: fixed, stratified, held out of train, and what a training evaluates instead of test."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from networks import TINY
from PIL import Image
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import DataConfig, ModelConfig
from convnext_jax.data import Dataset, Split, load
from convnext_jax.data.splitting import hold_out_validation
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import Selection, evaluate_workdir
from convnext_jax.run.loop import train
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.metrics_log import read_metrics


def split_tiny(dataset: Dataset, fraction: float = 0.2) -> Dataset:
    return hold_out_validation(dataset, fraction, [str(index) for index in range(len(dataset.train))])


def test_every_example_is_in_one_split_and_every_class_in_both():
    before = tiny_dataset()
    dataset = split_tiny(before)
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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_statistics_are_those_of_the_images_that_are_trained_on(channels: int):
    dataset = split_tiny(tiny_dataset(train=3000, size=4, channels=channels))
    scaled = dataset.train.images.astype(np.float64) / 255
    assert scaled.shape == (2400, 4, 4, channels)
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-6)


def test_a_class_of_one_example_is_refused():
    dataset = tiny_dataset()
    train = Split(dataset.train.images[:5], dataset.train.labels[:5])
    with pytest.raises(UserError, match=r"validation_fraction=0\.5: class class 1 of tiny has one training example"):
        hold_out_validation(dataclasses.replace(dataset, train=train), 0.5, list("abcde"))


@pytest.mark.parametrize("labeled", [True, False])
def test_masks_go_with_their_images(labeled: bool):
    dataset = tiny_dataset()
    masks = dataset.train.images[..., 0] % 3
    train = dataclasses.replace(dataset.train, masks=masks)
    if not labeled:
        dataset = dataclasses.replace(dataset, class_names=())
        train = dataclasses.replace(train, labels=np.zeros_like(train.labels))
    split = split_tiny(dataclasses.replace(dataset, train=train, mask_names=("a", "b", "c")))
    assert split.validation is not None and len(split.validation) == 8 and split.mask_names == ("a", "b", "c")
    for part in (split.train, split.validation):
        assert part.masks is not None and not part.masks.flags.writeable
        np.testing.assert_array_equal(part.masks, part.images[..., 0] % 3)


def test_the_digits_held_out_never_change():
    whole = load(DataConfig(name="digits", image_size=8))
    dataset = load(DataConfig(name="digits", image_size=8, validation_fraction=0.2))
    assert whole.validation is None and dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1151, 287, 359)
    np.testing.assert_array_equal(dataset.test.images, whole.test.images)
    digest = hashlib.sha256(dataset.validation.images[..., 0].tobytes()).hexdigest()
    assert digest == "ea6144e8d2b1f45bb7c1cc74cac64e81c3cac196c8b15650847f6c6eaa414f88"


# --- a training with a validation split, and its evaluation afterwards


@pytest.fixture(scope="module", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `tiny_dataset` with stripes, as files: 40 to train on and 13 to test on, whose labels are wrong."""
    root, dataset = tmp_path_factory.mktemp("pictures"), tiny_dataset()
    stripes = np.array([1, 0] * 8, np.uint8)[:, None, None]  # fine ones, which another size blurs
    for name, split, shift in (("train", dataset.train, 0), ("test", dataset.test, 1)):
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            folder = root / name / f"class {(label + shift) % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image * stripes).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Four epochs of four steps, half of them on images scaled to 16 pixels and half to 24, and the summary."""
    workdir = tmp_path_factory.mktemp("run")
    experiment = dataclasses.replace(
        tiny_experiment(image_sizes=(16, 24)),
        model=ModelConfig(name="convnext_atto", architecture=TINY, drop_path=0.2),
        data=DataConfig(name="image_folder", data_dir=str(pictures), validation_fraction=0.2),
    )
    mesh = make_mesh(jax.devices()[:1])
    with StepCompiler() as compiler, prepare(experiment, workdir, mesh, compiler=compiler) as run:
        return workdir, train(run)


def test_training_evaluates_it_and_says_so(trained: tuple[Path, dict[str, Any]]):
    workdir, summary = trained
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "validation/top1" in line]
    names = {f"{split}/{name}" for split in ("validation", "validation_ema") for name in ("loss", "top1", "top5")}
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    assert all({name for name in line if "/" in name} == names for line in lines)
    assert summary["split"] == "validation" and names < summary["final"].keys() == summary["best"].keys()
    assert summary["validation_examples"] == 8 and summary["train_examples"] == 32
    assert not any(name.startswith("test") for name in (*summary, *summary["final"]))
    assert (workdir / "curves.png").exists()
    (events,) = (workdir / "tensorboard").iterdir()
    assert b"validation/top1" in events.read_bytes() and b"test/" not in events.read_bytes()


def test_offline_evaluation_reads_the_split_that_it_is_told(trained: tuple[Path, dict[str, Any]]):
    workdir, summary = trained
    of = {
        split: evaluate_workdir(workdir, Selection(split=split))[0].figures for split in ("validation", "test", "train")
    }
    # The images are scaled as those of the last epoch were.
    assert of["validation"]["top1"] == summary["final"]["validation/top1"]
    assert of["validation"]["loss"] == pytest.approx(summary["final"]["validation/loss"], rel=1e-5)
    assert {split: figures["examples"] for split, figures in of.items()} == {"validation": 8, "test": 13, "train": 32}
    assert all(figures["split"] == split for split, figures in of.items())
    # The labels to test on are wrong.
    assert of["test"]["loss"] > 1.1 * max(of["train"]["loss"], of["validation"]["loss"])


def changed(workdir: Path, copy: Path, section: str, **fields: Any) -> Path:
    """A copy of a workdir, with other settings."""
    shutil.copytree(workdir, copy)
    config = json.loads((copy / "config.json").read_text())
    config[section] |= fields
    del config["checksum"]
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_another_image_size_would_give_other_figures(trained: tuple[Path, dict[str, Any]], tmp_path: Path):
    workdir, summary = trained
    native_run = changed(workdir, tmp_path / "run", "run", image_sizes=())
    native = evaluate_workdir(native_run, Selection(split="validation"))[0].figures
    assert native["loss"] != pytest.approx(summary["final"]["validation/loss"], rel=1e-3)


def test_a_validation_split_that_is_not_there_is_refused(
    trained: tuple[Path, dict[str, Any]], pictures: Path, tmp_path: Path
):
    workdir, _ = trained
    without_fraction = changed(workdir, tmp_path / "run", "data", validation_fraction=0.0)
    message = r"--split validation: the run in .* has no validation split \(config\.data\.validation_fraction="
    with pytest.raises(UserError, match=message + r"0\); take test or train"):
        evaluate_workdir(without_fraction, Selection(split="validation"))
    shutil.copytree(pictures / "train", tmp_path / "pictures" / "train")
    with pytest.raises(UserError, match=message + r"0\.2; without a folder to test on the share is the test split\)"):
        evaluate_workdir(workdir, Selection(split="validation", data_dir=str(tmp_path / "pictures")))
