"""Crops, flips and boxes against exhaustive or Pillow's references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import photographs
from PIL import Image

from convnext_jax.augment.boxes import random_box
from convnext_jax.augment.erasing import random_erasing
from convnext_jax.augment.geometry import (
    affine,
    alternating_flip,
    crop_by_choice,
    random_crop,
    random_flip,
    random_resized_crop,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
FILL = np.array([3, 250, 128], np.uint8)


@pytest.mark.parametrize("fill", [None, FILL], ids=["reflect", "constant"])
def test_crop_takes_every_place_of_the_padded_image_about_equally_often(fill: np.ndarray | None):
    batch, padding = 4000, 2
    color = None if fill is None else jnp.asarray(fill)
    images = jnp.asarray(np.tile(IMAGE, (batch, 1, 1, 1)))
    cropped = np.asarray(random_crop(jax.random.key(0), images, padding, color))
    if fill is None:
        padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    else:
        padded = np.tile(fill, (10, 11, 1))
        padded[2:-2, 2:-2] = IMAGE
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


def test_the_crop_of_a_tpu_is_the_same() -> None:
    padded = np.random.default_rng(0).integers(0, 256, (25, 9, 11, 3), dtype=np.uint8)
    offsets = np.stack(np.divmod(np.arange(25), 5), 1).astype(np.int32)
    found = crop_by_choice(2, jnp.asarray(padded), jnp.asarray(offsets))
    expected = [image[top : top + 5, left : left + 7] for image, (top, left) in zip(padded, offsets, strict=True)]
    np.testing.assert_array_equal(found, expected)


def test_flip_mirrors_half_of_the_images():
    batch = 1000
    flipped = np.asarray(random_flip(jax.random.key(1), jnp.asarray(np.tile(IMAGE, (batch, 1, 1, 1)))))
    mirrored = (flipped == IMAGE[:, ::-1]).all((1, 2, 3))
    kept = (flipped == IMAGE).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 420 < mirrored.sum() < 580


def test_alternating_flip_shows_every_example_both_ways_in_two_epochs():
    indices = np.arange(1000)
    images = jnp.asarray(np.tile(IMAGE, (1000, 1, 1, 1)))

    def mirrored(epoch: int, order: np.ndarray) -> np.ndarray:
        shown = alternating_flip(7, epoch, jnp.asarray(order), images)
        return np.asarray((shown == IMAGE[:, ::-1]).all((1, 2, 3)))

    first = mirrored(0, indices)
    assert 420 < first.sum() < 580
    np.testing.assert_array_equal(mirrored(1, indices), ~first)
    # It goes with the example, whatever batch and place it comes in.
    order = np.random.default_rng(1).permutation(1000)
    np.testing.assert_array_equal(mirrored(2, order), first[order])


def test_a_box_enlarged_is_pillows_crop_and_resize():
    images = photographs()
    rng = np.random.default_rng(0)
    left, upper = rng.integers(0, 20, len(images)), rng.integers(0, 16, len(images))
    boxes = np.stack([left, upper, left + rng.integers(5, 21, 12), upper + rng.integers(4, 17, 12)], -1)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    zero = np.zeros(12)
    matrices = np.stack([width / 40, zero, left, zero, height / 32, upper], -1).astype(np.float32)
    found = affine(jnp.asarray(images), jnp.asarray(matrices), box=jnp.asarray(boxes))
    for image, box, ours in zip(images, boxes, np.asarray(found), strict=True):
        piece = Image.fromarray(image).crop(tuple(box))
        expected = np.asarray(piece.resize((40, 32), Image.Resampling.BILINEAR), np.int32)
        # Pillow resizes in two passes and rounds in each; an affine map is one, truncated.
        assert np.abs(ours - expected).max() <= 2


def test_resized_crops_keep_to_their_area_and_reach_the_whole_image():
    box, fits = map(np.asarray, random_box(jax.random.key(0), 2000, 32, 40, (0.25, 1.0), (3 / 4, 4 / 3)))
    assert fits.all()
    left, upper, right, lower = box.T
    assert (left >= 0).all() and (upper >= 0).all() and (right <= 40).all() and (lower <= 32).all()
    width, height = right - left, lower - upper
    share = width * height / (32 * 40)
    assert share.min() > 0.22 and share.max() > 0.95  # whole pixels: the sides are rounded
    assert 0.5 < share.mean() < 0.65
    ratio = width / height
    assert ratio.min() > 0.7 and ratio.max() < 1.45
    assert abs(np.corrcoef(left[share < 0.5], upper[share < 0.5])[0, 1]) < 0.15


def test_where_no_box_fits_a_crop_takes_the_whole_image_and_nothing_is_erased():
    images = jnp.asarray(photographs(8, 80))
    square = (1.0, 1.0001)
    assert not random_box(jax.random.key(0), 5, 8, 80, (0.9, 0.9), square)[1].any()
    np.testing.assert_array_equal(random_resized_crop(jax.random.key(0), images, 0.9, square), images)
    floats = images.astype(jnp.float32)
    np.testing.assert_array_equal(random_erasing(jax.random.key(0), floats, 1.0, area=(0.9, 0.9), ratio=square), floats)


def test_a_resized_crop_of_the_whole_image_is_the_image():
    images = jnp.asarray(photographs(32, 32))
    np.testing.assert_array_equal(random_resized_crop(jax.random.key(0), images, 1.0, (1.0, 1.0001)), images)
    assert (np.asarray(random_resized_crop(jax.random.key(0), images, 0.3)) != images).any((1, 2, 3)).all()
