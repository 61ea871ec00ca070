"""A trained network in a notebook: what it predicts, what it refuses, and the examples of its document."""

import dataclasses
import functools
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT
from networks import FAMILIES, TINY
from photographs import photographs
from PIL import Image
from scipy.special import softmax
from tiny import tiny_dataset, tiny_experiment
from tiny_masks import masks_dataset, train_masks
from tiny_run import EMA_SEED, run_model, write_run

import convnext_jax
from convnext_jax.errors import UserError
from convnext_jax.evaluate.predictions import Forward
from convnext_jax.models import MODELS, merge_model, split_model
from convnext_jax.models.interface import Architecture
from convnext_jax.models.weights import ModelFolder
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

IMAGES = photographs(16, 16)  # the size of the training
RECORD = DatasetRecord.of(tiny_dataset())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@functools.partial(jax.jit, static_argnums=0)
def logits(definition: Any, params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
    return merge_model(definition, params, batch_stats)(images)


def probabilities(images: np.ndarray, seed: int = 10, architecture: Architecture = TINY) -> np.ndarray:
    """Those of the network of a seed, in one call; the channels have mean 0.5 and deviation 0.25."""
    normalized = (images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    return softmax(np.float64(logits(*split_model(run_model(seed, architecture)), normalized)), axis=-1)


def scaled(side: int) -> np.ndarray:
    return np.asarray(jax.image.resize(np.float32(IMAGES), (len(IMAGES), side, side, 3), "linear"))


def test_probabilities_are_those_of_the_chosen_weights(workdir: Path):
    for chosen, seed in (({}, 10), ({"step": 5}, 5), ({"step": "best"}, 5), ({"weights": "ema"}, EMA_SEED)):
        predicted = convnext_jax.load(workdir, **chosen).predict(IMAGES)
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, probabilities(IMAGES, seed), rtol=1e-4)


def test_any_number_of_images_compiles_once(workdir: Path, monkeypatch: pytest.MonkeyPatch):
    traced, call = [], Forward.__call__

    def counting(self: Forward, *arguments: Any) -> jax.Array:
        traced.append(self)
        return call(self, *arguments)

    monkeypatch.setattr(Forward, "__call__", counting)
    classifier = convnext_jax.load(workdir, batch_size=16)
    expected = probabilities(IMAGES)
    for count in (1, 7, 12):
        np.testing.assert_allclose(classifier.predict(IMAGES[:count]), expected[:count], rtol=1e-4)
    assert len(traced) == 1


def test_pictures_are_resized_and_cropped_as_pillow_does(workdir: Path, tmp_path: Path):
    classifier = convnext_jax.load(workdir)
    picture = Image.fromarray(photographs(60, 90)[3])
    picture.save(tmp_path / "a.png")
    expected = np.asarray(picture.resize((24, 16), Image.Resampling.BICUBIC).crop((4, 0, 20, 16)))
    for given in (picture, tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(classifier.preprocess(given), expected)
    ours = classifier.predict([picture, tmp_path / "a.png"])
    np.testing.assert_allclose(ours, probabilities(np.stack([expected] * 2)), rtol=1e-4)
    np.testing.assert_array_equal(classifier.predict(picture), ours[:1])
    (height, width, channels), preprocess = classifier.preprocess.shape, classifier.preprocess
    assert (height, width, channels, preprocess.mean, preprocess.std) == (16, 16, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_pillow_image_is_what_its_file_is(workdir: Path, tmp_path: Path, mode: str):
    preprocess = convnext_jax.load(workdir).preprocess
    picture = Image.fromarray(IMAGES[0]).convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(IMAGES[1]).convert("L"))
    picture.save(tmp_path / "a.png")
    pixels = preprocess(picture)
    assert pixels.std() > 20
    np.testing.assert_array_equal(pixels, preprocess(tmp_path / "a.png"))


def test_pillow_images_of_other_modes_are_converted(workdir: Path):
    preprocess = convnext_jax.load(workdir).preprocess
    picture = Image.fromarray(IMAGES[0])
    np.testing.assert_array_equal(preprocess(picture.convert("CMYK")), IMAGES[0])
    picture.getexif()[0x0112] = 6  # to be turned a quarter clockwise
    np.testing.assert_array_equal(preprocess(picture), np.rot90(IMAGES[0], -1))
    for mode in ("I", "F"):
        with pytest.raises(UserError, match=f"mode '{mode}' has no known range; convert it to 8 bits a channel"):
            preprocess(picture.convert("L").convert(mode))


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_the_input_of_the_last_layer(family: str, tmp_path: Path):
    architecture = FAMILIES[family]
    side = max(16, architecture.smallest_image)
    experiment = tiny_experiment(architecture, image_sizes=(side,))
    name = next(name for name, each in MODELS.items() if type(each) is type(architecture))
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, name=name))
    classifier = convnext_jax.load(write_run(tmp_path, experiment, architecture=architecture))
    features, head = classifier.features(IMAGES), run_model(architecture=architecture).head
    assert features.shape == (len(IMAGES), head.kernel.shape[0]) and features.dtype == np.float32
    bias = 0.0 if head.bias is None else np.float64(head.bias[...])
    ours = softmax(np.float64(features) @ np.float64(head.kernel[...]) + bias, -1)
    np.testing.assert_allclose(ours, classifier.predict(IMAGES), rtol=1e-4)
    np.testing.assert_allclose(ours, probabilities(scaled(side), architecture=architecture), rtol=1e-4)


def test_an_explanation_is_of_the_most_probable_class_unless_others_are_named(workdir: Path):
    classifier = convnext_jax.load(workdir, batch_size=8)
    best = classifier.predict(IMAGES).argmax(-1)
    every = classifier.explain(IMAGES, [[0, 1, 2, 3]] * len(IMAGES))
    assert every.shape == (12, 4, 2, 2) and classifier.explainable_stage() == 3  # that of stage 4 has one pixel
    assert all(every[:, number].any() for number in range(4))
    np.testing.assert_allclose(classifier.explain(IMAGES)[:, 0], every[np.arange(12), best], rtol=1e-5, atol=1e-8)
    assert classifier.explain(IMAGES[:1], stage=1).shape == (1, 1, 8, 8)
    for wrong in ([[0]], [[4]] * 12, [[-1]] * 12, [0] * 12):
        with pytest.raises(UserError, match=r"classes=.*: must be \[N,k\] numbers below 4 for N images"):
            classifier.explain(IMAGES, wrong)


def test_images_are_scaled_as_in_the_last_epochs(tmp_path: Path):
    classifier = convnext_jax.load(write_run(tmp_path, tiny_experiment(image_sizes=(16, 32))))
    assert classifier.preprocess.shape == (16, 16, 3)
    np.testing.assert_allclose(classifier.predict(IMAGES), probabilities(scaled(32)), rtol=1e-3)
    assert classifier.explain(IMAGES[:1]).shape == (1, 1, 2, 2), "the map that 32 pixels have in stage 4"


def test_pixels_may_come_as_a_list_or_from_jax(workdir: Path):
    classifier = convnext_jax.load(workdir)
    expected = classifier.predict(IMAGES)
    for given in (list(IMAGES), tuple(map(jax.numpy.asarray, IMAGES)), jax.numpy.asarray(IMAGES)):
        np.testing.assert_array_equal(classifier.predict(given), expected)
    with pytest.raises(UserError, match="images of several sizes are given; give Pillow images or paths to have them"):
        classifier.predict([IMAGES[0], IMAGES[1][:8]])
    with pytest.raises(UserError, match="^int is no picture; give a path or a Pillow image"):
        classifier.predict([7])  # pyright: ignore


def test_arrays_of_another_kind_are_refused(workdir: Path):
    classifier = convnext_jax.load(workdir)
    for wrong in (IMAGES / 255, photographs(16, 20), IMAGES[0], IMAGES[..., :1]):
        with pytest.raises(UserError, match=r"are given, and the network takes uint8 \[N,16,16,3\]; give Pillow"):
            classifier.predict(wrong)
    for empty in ([], IMAGES[:0]):
        with pytest.raises(UserError, match="no images are given"):
            classifier.features(empty)


def test_images_that_are_not_square_must_have_their_size(tmp_path: Path):
    train = dataclasses.replace(RECORD.splits["train"], shape=(16, 24, 3))
    run = write_run(tmp_path / "run", record=dataclasses.replace(RECORD, splits={"train": train}))
    classifier, images = convnext_jax.load(run), photographs(16, 24)
    np.testing.assert_allclose(classifier.predict([Image.fromarray(images[0])]), probabilities(images[:1]), rtol=1e-4)
    Image.fromarray(photographs(16, 20)[0]).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png has 20x16 pixels, and the network was trained on 24x16"):
        classifier.predict([tmp_path / "a.png"])


def test_a_run_that_did_not_record_the_size_of_its_images_is_told_it(tmp_path: Path):
    record = dataclasses.replace(RECORD, splits={})  # as version 0.1 did
    run = write_run(tmp_path / "a", record=record)
    assert convnext_jax.load(run).preprocess.shape == (32, 32, 3), "CIFAR-100, by its name"
    own = tiny_experiment()
    own = dataclasses.replace(own, data=dataclasses.replace(own.data, name="image_folder"))
    run = write_run(tmp_path / "b", own, record=record)
    assert convnext_jax.load(run, image_size=16).preprocess.shape == (16, 16, 3)
    with pytest.raises(UserError, match="did not record the size of its images; give image_size"):
        convnext_jax.load(run)


def test_a_folder_of_weights_is_loaded_as_well(tmp_path: Path):
    params = split_model(run_model())[1]
    fields = dataclasses.asdict(TINY)
    names, mean, std = RECORD.class_names, RECORD.mean, RECORD.std
    ModelFolder(params, {}, "convnext_atto", fields, names, mean, std, "a test").write(tmp_path / "weights")
    classifier = convnext_jax.load(tmp_path / "weights", image_size=16)
    assert classifier.classes == names
    np.testing.assert_allclose(classifier.predict(IMAGES), probabilities(IMAGES), rtol=1e-4)
    with pytest.raises(UserError, match="a folder of weights, which does not know the size of images; give image_size"):
        convnext_jax.load(tmp_path / "weights")
    with pytest.raises(UserError, match="a folder of weights, without checkpoints; leave step and weights out"):
        convnext_jax.load(tmp_path / "weights", step="best")


def test_what_cannot_be_loaded_is_named(workdir: Path, tmp_path: Path):
    def refuse(directory: Path, message: str, **chosen: Any) -> None:
        with pytest.raises(UserError, match=message):
            convnext_jax.load(directory, **chosen)

    refuse(tmp_path, f"{tmp_path} is no workdir of train.py")
    refuse(workdir, "no checkpoint '7'; there are 5, 10; or say best or latest", step=7)
    refuse(workdir, "weights='swa': must be raw or ema", weights="swa")
    refuse(workdir, "batch_size=0: must be 1 or more", batch_size=0)
    experiment = tiny_experiment()
    without = dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, ema_decay=0.0))
    refuse(write_run(tmp_path / "a", without), "the run in .* keeps no average", weights="ema")
    shutil.rmtree(tmp_path / "a" / "checkpoints")
    refuse(tmp_path / "a", "a has no checkpoints yet")
    (tmp_path / "a" / "checkpoints").mkdir()
    refuse(tmp_path / "a", "no checkpoint 'latest'; there is none yet")
    write_claim(tmp_path / "b", tiny_experiment(seeds=3, seed=7))
    refuse(tmp_path / "b", "holds 3 seeds; take one of them, such as .*/b/seed_7")


def test_the_examples_of_the_document_run(workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(workdir, tmp_path / "runs" / "c100")
    train_masks(tmp_path / "runs" / "scenes", masks_dataset(), epochs=1)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photographs()[0]).save(tmp_path / "photos" / "cat.jpg")
    Image.fromarray(photographs()[1]).save(tmp_path / "photos" / "dog.png")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "prediction.md").read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec("".join(examples), made)
    assert len(made["names"]) == 2 and set(made["names"]) <= set(RECORD.class_names)
    assert made["features"].shape == (1, 16) and made["maps"].ndim == 4 and made["pixels"].shape == (16, 16, 3)
    assert made["masks"].shape == (2, 16, 16) and made["large"].shape == photographs()[0].shape[:2]
