"""The embedded digits: the same split for everyone, in equal shares of every class."""

import hashlib
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits as load_bunch

from convnext_jax.config import DataConfig
from convnext_jax.data import load
from convnext_jax.data.splitting import held_out


def _originals() -> Any:
    bunch: Any = load_bunch()
    return bunch.images


def test_sizes_and_types() -> None:
    dataset = load(DataConfig(name="digits"))
    assert dataset.train.images.shape == (1438, 32, 32, 3)
    assert dataset.test.images.shape == (359, 32, 32, 3)
    for split in (dataset.train, dataset.test):
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int32
        assert not split.images.flags.writeable and not split.labels.flags.writeable
        assert split.images.max() == 255 and split.images.min() == 0
    assert dataset.class_names == tuple("0123456789")


def test_the_split_never_changes() -> None:
    pixels = load(DataConfig(name="digits", image_size=8)).test.images[..., 0]
    digest = "ccfc453cf745e9843e1281f739bde67bf9354733ab5d0b6ce17056c916192b30"
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest


def test_every_class_has_its_share() -> None:
    dataset = load(DataConfig(name="digits"))
    train, test = (np.bincount(split.labels) for split in (dataset.train, dataset.test))
    np.testing.assert_allclose(test / (train + test), 0.2, atol=0.003)


def test_no_image_is_in_both_splits() -> None:
    dataset = load(DataConfig(name="digits"))
    train, test = ({image.tobytes() for image in s.images} for s in (dataset.train, dataset.test))
    assert not train & test
    distinct = {image.tobytes() for image in _originals()}
    assert len(train) + len(test) == len(distinct)


def test_images_are_the_originals_scaled() -> None:
    native = load(DataConfig(name="digits", image_size=8))
    originals = {np.round(image * (255 / 16)).astype(np.uint8).tobytes() for image in _originals()}
    assert {image[..., 0].tobytes() for image in native.train.images} < originals
    assert (native.train.images == native.train.images[..., :1]).all(), "gray in three channels"


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_are_the_same_gray(channels: int) -> None:
    rgb, dataset = (load(DataConfig(name="digits", image_size=8, channels=each)) for each in (3, channels))
    assert dataset.train.images.shape == (1438, 8, 8, channels) and dataset.mean.shape == (channels,)
    colors = 3 if channels == 4 else 1
    np.testing.assert_array_equal(dataset.train.images[..., :colors], rgb.train.images[..., :colors])
    if channels in (2, 4):
        assert (dataset.train.images[..., -1] == 255).all(), "opaque"


def test_statistics_are_those_of_the_train_split() -> None:
    dataset = load(DataConfig(name="digits"))
    scaled = dataset.train.images.astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, scaled.std((0, 1, 2)), rtol=1e-6)


def test_held_out_depends_on_the_keys_alone() -> None:
    keys = [f"{i}.png" for i in range(40)]
    classes = [i % 4 for i in range(40)]
    chosen = held_out(keys, classes, 0.3)
    assert [sum(c for c, label in zip(chosen, classes, strict=True) if label == k) for k in range(4)] == [3] * 4
    backwards = held_out(keys[::-1], classes[::-1], 0.3)
    assert backwards[::-1] == chosen
    assert sum(held_out(["a", "b"], [0, 0], 0.01)) == 1, "at least one is held out"
    assert sum(held_out(["a", "b"], [0, 0], 0.99)) == 1, "at least one is kept"
    assert sum(held_out(["a"], [0], 0.5)) == 0
    assert sum(held_out(["a", "caf\udce9"], [0, 0], 0.5)) == 1, "a file's name that is no UTF-8"
