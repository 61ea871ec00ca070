"""Crop and flip against an exhaustive reference, and the policy that puts them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.augment.geometry import random_crop, random_flip
from convnext_jax.augment.policy import augment, check_policy
from convnext_jax.config import AugmentConfig
from convnext_jax.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)


def test_crop_takes_every_place_of_the_reflected_image_about_equally_often():
    batch, padding = 4000, 2
    cropped = np.asarray(random_crop(jax.random.key(0), jnp.asarray(np.tile(IMAGE, (batch, 1, 1, 1))), padding))
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    places = {padded[i : i + 6, j : j + 7].tobytes(): (i, j) for i in range(5) for j in range(5)}
    assert len(places) == 25
    counts = np.zeros((5, 5))
    for image in cropped:
        counts[places[image.tobytes()]] += 1  # a KeyError here is an image that is no crop
    # 160 expected in each place, standard deviation 12.4.
    assert np.abs(counts - batch / 25).max() < 5 * 12.4


def test_no_padding_leaves_the_images_alone():
    images = jnp.asarray(IMAGE[None])
    assert random_crop(jax.random.key(0), images, 0) is images


def test_flip_mirrors_half_of_the_images():
    batch = 1000
    flipped = np.asarray(random_flip(jax.random.key(1), jnp.asarray(np.tile(IMAGE, (batch, 1, 1, 1)))))
    mirrored = (flipped == IMAGE[:, ::-1]).all((1, 2, 3))
    kept = (flipped == IMAGE).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 420 < mirrored.sum() < 580


def test_the_policy_is_a_function_of_its_key():
    images = jnp.asarray(np.tile(IMAGE, (16, 1, 1, 1)))
    config = AugmentConfig(crop_padding=2, flip=True)
    first, again, other = (augment(config, jax.random.key(seed), images) for seed in (5, 5, 6))
    assert first.dtype == jnp.uint8
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any((1, 2, 3)).sum() > 8


def test_the_policy_leaves_out_what_is_off():
    images = jnp.asarray(np.tile(IMAGE, (16, 1, 1, 1)))
    np.testing.assert_array_equal(augment(AugmentConfig(0, False), jax.random.key(0), images), images)
    # What the crop draws does not depend on whether the flip is on.
    only_crop = augment(AugmentConfig(2, False), jax.random.key(0), images)
    both = augment(AugmentConfig(2, True), jax.random.key(0), images)
    same_or_mirrored = (both == only_crop).all((1, 2, 3)) | (both == only_crop[:, :, ::-1]).all((1, 2, 3))
    assert same_or_mirrored.all()


def test_padding_that_reflection_cannot_fill_is_refused():
    check_policy(AugmentConfig(crop_padding=5), 6, 7)
    with pytest.raises(UserError, match=r"crop_padding=6: .*6x7 pixels; at most 5"):
        check_policy(AugmentConfig(crop_padding=6), 6, 7)
