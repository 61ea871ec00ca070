"""Random erasing: how often, how much, and with what."""

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.erasing import random_erasing

IMAGES = jnp.full((2000, 16, 24, 3), 5.0, jnp.float32)


def test_it_covers_a_rectangle_of_the_stated_area_as_often_as_stated():
    erased = np.asarray(random_erasing(jax.random.key(0), IMAGES, 0.25))
    covered = (erased == 0).all(-1)
    assert ((erased == 0) | (erased == 5)).all()
    touched = covered.any((1, 2))
    assert 0.2 < touched.mean() < 0.3
    share = covered[touched].mean((1, 2))
    assert 0.01 < share.min() < 0.05 and 0.3 < share.max() < 0.36
    rows, columns = covered[touched].any(2), covered[touched].any(1)
    # A rectangle: what is covered is as large as its rows times its columns.
    np.testing.assert_array_equal(covered[touched].sum((1, 2)), rows.sum(1) * columns.sum(1))
    # Every pixel can be covered.
    assert covered.any(0).all()


def test_pixels_are_normal_noise():
    erased = np.asarray(random_erasing(jax.random.key(0), IMAGES, 1.0, "pixel"))
    noise = erased[erased != 5]
    assert noise.size > 100_000
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_never_is_never():
    np.testing.assert_array_equal(random_erasing(jax.random.key(0), IMAGES[:8], 0.0), IMAGES[:8])
