"""The pipeline that puts the families of augmentation together."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import photographs
from PIL import Image

from convnext_jax.augment.pipeline import augment, check_augment
from convnext_jax.batches.preprocess import Normalization, normalize
from convnext_jax.batches.source import Batch
from convnext_jax.config import AugmentConfig, DataConfig
from convnext_jax.data import load
from convnext_jax.errors import UserError
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tasks.classification import Classification

IMAGES = photographs(32, 32)
BATCH = Batch(jnp.asarray(IMAGES), jnp.arange(12, dtype=jnp.int32), jnp.arange(100, 112, dtype=jnp.int32), jnp.int32(3))
TASK = Classification(12)
NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
OFF = AugmentConfig(crop_padding=0, flip="none")
EVERYTHING = AugmentConfig(
    resized_crop_area=0.5,
    flip="alternating",
    color_jitter=0.4,
    policy="randaugment",
    erasing_probability=0.5,
    erasing_mode="pixel",
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
)

compiled = jax.jit(augment, static_argnums=(0, 1, 2))


def augmented(config: AugmentConfig, seed: int = 0, step: int = 0) -> np.ndarray:
    return np.asarray(compiled(config, TASK, NORMALIZATION, jnp.uint32(seed), jnp.int32(step), BATCH)[0])


def test_with_everything_off_images_are_only_normalized():
    images, targets = augment(OFF, TASK, NORMALIZATION, 0, 0, BATCH)
    np.testing.assert_array_equal(images, normalize(BATCH.images, NORMALIZATION))
    np.testing.assert_array_equal(targets.labels_a, BATCH.labels)
    assert (targets.weight_a == 1).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_padding": 4},
        {"crop_padding": 4, "crop_mode": "constant"},
        {"resized_crop_area": 0.3},
        {"flip": "random"},
        {"flip": "alternating"},
        {"color_jitter": 0.4},
        {"policy": "randaugment"},
        {"policy": "trivialaugment"},
        {"erasing_probability": 0.5},
        {"erasing_probability": 0.5, "erasing_mode": "pixel"},
        {"mixup_alpha": 0.8},
        {"cutmix_alpha": 1.0},
    ],
    ids=str,
)
def test_each_family_acts_when_it_is_on(changes: dict):
    changed = (augmented(dataclasses.replace(OFF, **changes)) != augmented(OFF)).any((1, 2, 3))
    assert changed.mean() > 0.2


def test_everything_is_a_function_of_seed_and_step():
    first = augmented(EVERYTHING, 3, 5)
    assert first.dtype == np.float32 and np.isfinite(first).all()
    np.testing.assert_array_equal(augmented(EVERYTHING, 3, 5), first)
    for seed, step in ((3, 6), (4, 5)):
        assert (augmented(EVERYTHING, seed, step) != first).any((1, 2, 3)).mean() > 0.8


def test_what_one_family_draws_does_not_depend_on_the_others():
    only_crop = augmented(dataclasses.replace(OFF, crop_padding=4))
    both = augmented(dataclasses.replace(OFF, crop_padding=4, flip="random"))
    same, mirrored = (both == only_crop).all((1, 2, 3)), (both == only_crop[:, :, ::-1]).all((1, 2, 3))
    assert (same | mirrored).all() and same.any() and mirrored.any()


def test_eight_devices_give_the_images_of_one():
    sharding = Sharding(make_mesh())
    batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:4]]) if leaf.ndim else leaf, BATCH)
    places = Batch(*[sharding.batch] * 3, sharding.replicated)
    arguments = (EVERYTHING, TASK, NORMALIZATION, jnp.uint32(3), jnp.int32(5))
    expected = compiled(*arguments, batch)
    found = compiled(*arguments, jax.device_put(batch, places))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), found, expected)
    # Each device has its own images.
    assert [shard.data.shape for shard in found[0].addressable_shards] == [(2, 32, 32, 3)] * 8


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_any_channels_reach_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for index, image in enumerate(IMAGES):
        path = tmp_path / "pictures" / ("val" if index % 6 == 5 else "train") / f"class{index // 6}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image)
        picture.putalpha(Image.fromarray(IMAGES[index - 1, ..., 0]))
        picture.save(path)
    dataset = load(DataConfig("image_folder", data_dir=str(tmp_path / "pictures"), channels=channels))
    images, labels = jnp.asarray(dataset.train.images), jnp.asarray(dataset.train.labels)
    assert images.shape == (10, 32, 32, channels)
    batch = Batch(images, labels, jnp.arange(10), jnp.int32(0))
    normalization = Normalization(tuple(map(float, dataset.mean)), tuple(map(float, dataset.std)))
    plain, _ = augment(OFF, Classification(2), normalization, 0, 0, batch)
    np.testing.assert_allclose(plain.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(plain.std((0, 1, 2)), 1, atol=1e-4)
    everything = dataclasses.replace(EVERYTHING, crop_mode="constant")
    augmented, targets = compiled(everything, Classification(2), normalization, 0, 0, batch)
    assert augmented.shape == plain.shape and np.isfinite(augmented).all()
    assert (augmented != plain).any((1, 2, 3)).all() and (targets.weight_a < 1).any()


def test_padding_that_reflection_cannot_fill_is_refused():
    check_augment(AugmentConfig(crop_padding=5), 6, 7)
    check_augment(AugmentConfig(crop_padding=6, crop_mode="constant"), 6, 7)
    with pytest.raises(UserError, match=r"crop_padding=6: .*6x7 pixels; at most 5"):
        check_augment(AugmentConfig(crop_padding=6), 6, 7)
