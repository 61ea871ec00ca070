"""Random rectangles of encoded pictures: what is drawn, what is decoded, and that a run gets them."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from test_batches import SHARDING
from tiny import tiny_experiment

from convnext_jax.batches.streaming import StreamingSource
from convnext_jax.config import AugmentConfig, DataConfig
from convnext_jax.data import load
from convnext_jax.data.dataset import Dataset
from convnext_jax.data.decode import Picture, decode_crop
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.prepared import find_prepared
from convnext_jax.data.random_crop import RandomCrop
from convnext_jax.data.tfds_builders import prepare as prepare_data
from convnext_jax.errors import UserError
from convnext_jax.models.lenet import LeNetArchitecture
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import StepCompiler

# --- the rectangle


def test_rectangles_are_uniform_in_area_and_logarithmic_in_shape():
    width, height, crop = 500, 400, RandomCrop(seed=1, min_area=0.25)
    boxes = np.array([crop.box(0, index, width, height) for index in range(4000)])
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    shares, shapes = sizes.prod(1) / (width * height), np.log(sizes[:, 0] / sizes[:, 1]) / np.log(4 / 3)
    assert 0.245 < shares.min() < 0.26 and np.abs(shapes).max() < 1.02
    # Small rectangles all fit, and both are uniform: means 0.35 and 0, deviations 0.1 and 1 over the root of 3.
    small = shares < 0.45
    assert shares[small].mean() == pytest.approx(0.35, abs=0.006)
    assert shares[small].std() == pytest.approx(0.1 / np.sqrt(3), abs=0.003)
    assert shapes[small].mean() == pytest.approx(0, abs=0.06)
    assert shapes[small].std() == pytest.approx(1 / np.sqrt(3), abs=0.03)
    # The place is uniform as well, up to both ends.
    where = boxes[:, :2] / np.maximum((width, height) - sizes, 1)
    assert (where.min(0) == 0).all() and (where.max(0) == 1).all()
    assert where[small].mean(0) == pytest.approx([0.5, 0.5], abs=0.03)


def test_a_rectangle_is_a_function_of_seed_epoch_and_example():
    draws = {
        (seed, epoch, index): RandomCrop(seed, 0.08).box(epoch, index, 500, 375)
        for seed in (0, 1, 2**32 - 1)
        for epoch in (0, 1)
        for index in (0, 1, 2**21)
    }
    assert len(set(draws.values())) == len(draws)
    # Part of the identity of every run: a run that goes on with another release must draw the same.
    assert draws[0, 0, 0] == (42, 133, 163, 273) and draws[1, 1, 2**21] == (125, 115, 376, 354)


@pytest.mark.parametrize(
    ("size", "expected"), [((900, 30), (430, 0, 470, 30)), ((30, 900), (0, 430, 30, 470)), ((1, 1), (0, 0, 1, 1))]
)
def test_where_none_fits_it_is_the_center(size: tuple[int, int], expected: tuple[int, ...]):
    assert RandomCrop(0, 1.0).box(0, 0, *size) == expected


# --- its pixels

RAMP = np.add.outer(np.arange(300), 0.5 * np.arange(400))[..., None] * np.array([0.5, 0.3, 0.1])
PHOTOGRAPH = np.uint8(RAMP + np.random.default_rng(0).integers(0, 40, RAMP.shape))  # [300,400,3]
BOX = (33, 20, 353, 260)


def encoded(image: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def cropped(content: bytes, box: tuple[int, int, int, int], size: int, channels: int = 3) -> np.ndarray:
    asked: list[tuple[int, int]] = []

    def choose(width: int, height: int) -> tuple[int, int, int, int]:
        asked.append((width, height))
        return box

    pixels = decode_crop(Picture("a", content, 0), choose, size, channels)
    assert len(asked) == 1 and pixels.shape == (size, size, channels) and pixels.dtype == np.uint8
    return pixels


def resized(image: Image.Image, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box))


@pytest.mark.parametrize("size", [24, 120, 300])
def test_it_is_the_rectangle_resized(size: int):
    expected = resized(Image.fromarray(PHOTOGRAPH), BOX, size)
    np.testing.assert_array_equal(cropped(encoded(PHOTOGRAPH, "png"), BOX, size), expected)
    np.testing.assert_array_equal(
        cropped(encoded(PHOTOGRAPH, "png"), BOX, size, channels=1)[..., 0],
        resized(Image.fromarray(PHOTOGRAPH).convert("L"), BOX, size),
    )


@pytest.mark.parametrize(("size", "scale"), [(240, 1), (121, 1), (120, 2), (61, 2), (60, 4), (31, 4), (30, 8), (5, 8)])
def test_a_jpeg_is_decoded_at_the_scale_that_it_needs(size: int, scale: int):
    content = encoded(PHOTOGRAPH, "jpeg", quality=95)
    small = Image.open(io.BytesIO(content))
    small.draft(None, (400 // scale, 300 // scale))
    assert small.width == 400 // scale
    box = tuple(side / scale for side in BOX)
    found = cropped(content, BOX, size)
    np.testing.assert_array_equal(found, resized(small, (box[0], box[1], box[2], box[3]), size))
    # Nearly what the whole picture would give.
    whole = resized(Image.open(io.BytesIO(content)), BOX, size)
    assert np.abs(found.astype(int) - whole).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rectangle_is_of_the_picture_turned_upright(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(PHOTOGRAPH, "jpeg", quality=95, exif=exif)
    upright = np.asarray(Image.open(io.BytesIO(content)))
    if orientation > 4:
        upright = upright.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    upright = Image.fromarray(np.ascontiguousarray(upright[::rows, ::columns]))
    box = (10, 150, 110, 200)  # beyond the lower side of one that is not turned
    found: list[np.ndarray] = []
    for size in (50, 12):
        found.append(decode_crop(Picture("a", content, 0), lambda width, height: box, size))
    np.testing.assert_array_equal(found[0], resized(upright, box, 50))
    assert np.abs(found[1].astype(int) - resized(upright, box, 12)).mean() < 2


def test_a_tiff_is_turned_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(PHOTOGRAPH, "tiff", exif=exif)
    upright = Image.fromarray(np.ascontiguousarray(PHOTOGRAPH.transpose(1, 0, 2)[:, ::-1]))
    box = (10, 150, 110, 200)
    found = decode_crop(Picture("a", content, 0), lambda width, height: box if height > width else (0, 0, 1, 1), 50)
    np.testing.assert_array_equal(found, resized(upright, box, 50))


def test_a_damaged_picture_is_named():
    with pytest.raises(UserError, match=r"picture train\[7\] cannot be read"):
        decode_crop(Picture("train[7]", encoded(PHOTOGRAPH, "jpeg")[:900], 0), lambda width, height: (0, 0, 9, 9), 8)


# --- a run on ImageNet


class Imagenet2012(tfds.core.GeneratorBasedBuilder):
    """A data set with the splits and features of the real one: photographs of several sizes."""

    VERSION = tfds.core.Version("5.1.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=[f"n{number:08d}" for number in range(4)]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(range(40)), "validation": self._generate_examples(range(40, 50))}

    def _generate_examples(self, indices: range) -> Any:
        for index in indices:
            height, width = 60 + 7 * (index % 5), 60 + 11 * (index % 3)
            content = encoded(PHOTOGRAPH[index : index + height, index : index + width], "jpeg", quality=95)
            yield index, {"image": io.BytesIO(content), "label": index % 4, "file_name": f"{index}.JPEG"}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    prepare_data(Imagenet2012(data_dir=root), None)
    assert find_prepared(root, "imagenet2012") is not None
    return load(DataConfig("imagenet2012", data_dir=str(root), image_size=32))


def test_imagenet_is_read_from_a_prepared_copy(imagenet: Dataset):
    assert imagenet.train.images.shape == (40, 32, 32, 3) and imagenet.test.images.shape == (10, 32, 32, 3)
    assert isinstance(imagenet.train.images, EncodedImages) and isinstance(imagenet.test.images, np.ndarray)
    assert imagenet.class_names == tuple(f"n{number:08d}" for number in range(4))


def test_the_batches_are_random_rectangles_whoever_decodes_them(imagenet: Dataset):
    images, crop = imagenet.train.images, RandomCrop(5, 0.1)
    assert isinstance(images, EncodedImages)
    settings: Any = {"seed": 5, "batch_size": 8, "sharding": SHARDING, "most_steps": 3, "crop": crop}
    feeds = []
    for workers in (1, 2):
        source = StreamingSource(imagenet.train, workers=workers, **settings)
        feeds.append([source.feed(first, count) for first, count in ((0, 3), (12, 2))])
        source.close()
    for number, epoch in enumerate((0, 2)):
        rows, again = (np.asarray(each[number].rows) for each in feeds)
        np.testing.assert_array_equal(rows, again)
        indices = np.asarray(feeds[0][number].indices)[:2].reshape(-1)
        expected = images.crops(indices.tolist(), crop, epoch)
        np.testing.assert_array_equal(rows[:2].reshape(16, 32, 32, 3), expected)
        assert (expected != images.crops(indices.tolist(), crop, epoch + 1)).any((1, 2, 3)).all()
        assert (expected != images[indices]).any((1, 2, 3)).all()


@pytest.mark.parametrize("area", [0.2, 1.0])
def test_a_run_crops_once_on_the_host(imagenet: Dataset, tmp_path: Path, area: float):
    augment = AugmentConfig(crop_padding=0, flip="none", resized_crop_area=area)
    experiment = dataclasses.replace(tiny_experiment(LeNetArchitecture((4, 4, 8), 8), seed=9), augment=augment)
    experiment = dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, name="lenet5", drop_path=0.0)
    )
    mesh = make_mesh(jax.devices()[:1])
    with prepare(experiment, tmp_path / "run", mesh, compiler=StepCompiler(), dataset=imagenet) as run:
        spec = run.plan.spec
        feed = run.source.feed(5, 1)  # the second epoch
        batch = run.source.batch(feed, jnp.int32(0))
        inputs, _ = spec.augment(9, 5, batch)
    images, indices = imagenet.train.images, np.asarray(batch.indices)
    assert isinstance(images, EncodedImages)
    expected = images[indices] if area == 1 else images.crops(indices.tolist(), RandomCrop(9, area), 1)
    np.testing.assert_array_equal(batch.images, expected)
    # The device leaves them as they are.
    pixels = 255 * (np.asarray(inputs) * imagenet.std + imagenet.mean)
    np.testing.assert_allclose(pixels, expected, atol=0.01)
