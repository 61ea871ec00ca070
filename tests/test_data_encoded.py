"""Pictures that stay encoded: what is known of them, how they are read, and how a process that decodes them fails."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from encoded_pictures import SHAPE, Pictures
from test_batches import SHARDING
from tiny import tiny_experiment

from convnext_jax.batches.streaming import StreamingSource
from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.data.dataset import Split
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.prepared import find_prepared
from convnext_jax.data.tfds_builders import prepare
from convnext_jax.errors import Failure, UserError
from convnext_jax.run.prepare import check_against_data

NAME = "imagenet_resized/64x64"
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), np.uint8)


class ImagenetResized(tfds.core.GeneratorBasedBuilder):
    """A data set with the splits and features of the real one, and few and small pictures."""

    VERSION = tfds.core.Version("0.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="64x64")]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(range(40)), "validation": self._generate_examples(range(40, 50))}

    def _generate_examples(self, indices: range) -> Any:
        for index in indices:
            yield index, {"image": PIXELS[index], "label": index % 4}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepare(ImagenetResized(data_dir=root, config="64x64"), None)
    return root


@pytest.fixture(scope="module")
def split(prepared: Path) -> Split:
    return load(DataConfig(NAME, data_dir=str(prepared))).train


def decoded(split: Split) -> Split:
    assert isinstance(split.images, EncodedImages)
    return Split(split.images[:], split.labels)


def test_of_imagenet_the_training_pictures_stay_encoded(prepared: Path) -> None:
    for _ in range(2):  # decoded once, then from the cache
        dataset = load(DataConfig(NAME, data_dir=str(prepared)))
        images, labels = dataset.train.images, dataset.train.labels
        assert isinstance(images, EncodedImages) and images.shape == (40, 6, 5, 3) and images.dtype == np.uint8
        # TFDS shuffles while it prepares.
        found = {image.tobytes(): label for image, label in zip(images[:], labels, strict=True)}
        assert found == {PIXELS[index].tobytes(): index % 4 for index in range(40)}
        assert isinstance(dataset.test.images, np.ndarray) and dataset.test.images.shape == (10, 6, 5, 3)
        np.testing.assert_allclose(dataset.mean, PIXELS[:40].mean((0, 1, 2)) / 255, rtol=1e-6)
        np.testing.assert_allclose(dataset.std, PIXELS[:40].std((0, 1, 2)) / 255, rtol=1e-6)
    folder = find_prepared(prepared, NAME)
    assert folder is not None and not list(folder.rglob("train_images.npy"))


def test_encoded_images_are_indexed_as_an_array(split: Split) -> None:
    images, pixels = split.images, decoded(split).images
    for which in (3, -1, slice(2, 9, 3), slice(0, 0), np.array([7, 0, 7])):
        expected = pixels[which]
        found = images[which]
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)


def test_processes_decode_the_batches_that_a_decoded_split_has(split: Split) -> None:
    settings: Any = {"seed": 5, "batch_size": 8, "sharding": SHARDING, "most_steps": 3}
    sources = [StreamingSource(split, workers=2, **settings), StreamingSource(decoded(split), **settings)]
    for first, count in ((0, 3), (3, 2), (12, 3), (1, 1)):
        ours, theirs = (source.feed(first, count) for source in sources)
        for name in ("rows", "labels", "indices"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    for source in sources:
        source.close()


@pytest.mark.parametrize(
    ("special", "error", "message"),
    [
        ("broken", UserError, r"picture train\[123\] of x cannot be read"),
        (
            "dies",
            Failure,
            "a process that decodes pictures ended by signal 9, perhaps for lack of memory",
        ),
    ],
)
def test_what_goes_wrong_in_a_process_ends_the_run_in_a_line(
    special: str, error: type[Exception], message: str
) -> None:
    split = Split(EncodedImages(Pictures(special), SHAPE), np.zeros(300, np.int32))
    source = StreamingSource(split, seed=0, batch_size=8, sharding=SHARDING, most_steps=40, workers=2)
    with pytest.raises(error, match=message) as raised:
        source.feed(0, 37)
    assert "\n" not in str(raised.value)
    source.close()


def test_a_source_is_closed_while_a_process_decodes() -> None:
    split = Split(EncodedImages(Pictures("waits"), SHAPE), np.zeros(300, np.int32))
    source = StreamingSource(split, seed=0, batch_size=8, sharding=SHARDING, most_steps=40, workers=1)
    source.read_ahead(0)
    time.sleep(0.2)
    started = time.monotonic()
    source.close()
    assert time.monotonic() - started < 5
    with pytest.raises(Exception, match="have been ended|after shutdown"):
        source.feed(0, 37)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    prepare(ImagenetResized(data_dir=tmp_path, config="64x64"), None)
    folder = find_prepared(tmp_path, NAME)
    assert folder is not None
    (file,) = folder.glob("*-train.array_record-*")
    content = bytearray(file.read_bytes())
    content[5000:5040] = bytes(40)  # the records come first, the rest is mostly padding
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{folder} is damaged \(example train\[\d+\]: ") as raised:
        load(DataConfig(NAME, data_dir=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_what_cannot_be_done_with_encoded_pictures_is_said(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{NAME} is not in .*: ImageNet cannot be fetched for you"):
        load(DataConfig(NAME, data_dir=str(tmp_path)))
    with pytest.raises(UserError, match=r"validation_fraction=0.1: no examples can be held out of imagenet_resized"):
        load(DataConfig(NAME, data_dir=str(prepared), validation_fraction=0.1))
    with pytest.raises(UserError, match="imagenet2012 has images of several sizes: give one"):
        load(DataConfig("imagenet2012", data_dir=str(prepared)))
    dataset = load(DataConfig(NAME, data_dir=str(prepared)))
    experiment = tiny_experiment()
    experiment = dataclasses.replace(experiment, data=DataConfig(resident="always"))
    with pytest.raises(UserError, match=r"resident=always: the training pictures of imagenet_resized.* stay encoded"):
        check_against_data(experiment, dataset, SHARDING)
