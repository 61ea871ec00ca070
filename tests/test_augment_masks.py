"""Masks that follow their images: each operation alone and all at once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convnext_jax.augment.geometry import affine, affine_nearest, random_crop_maps, random_rotation_maps
from convnext_jax.augment.pipeline import augment
from convnext_jax.batches.preprocess import Normalization
from convnext_jax.batches.source import Batch, MaskedLabels
from convnext_jax.config import AugmentConfig
from convnext_jax.data.dataset import IGNORED
from convnext_jax.tasks.segmentation import Segmentation

COUNT, SIDE = 16, 12
RNG = np.random.default_rng(0)
MASKS = RNG.integers(0, 6, (COUNT, SIDE, SIDE)).astype(np.uint8)
PLAIN = Normalization((0.0,), (1 / 255,))  # pixels as they are
OFF: dict[str, Any] = {"crop_padding": 0, "flip": "none"}


def batch(images: np.ndarray, masks: np.ndarray = MASKS) -> Batch:
    labels = MaskedLabels(jnp.arange(COUNT), jnp.asarray(masks))
    return Batch(jnp.asarray(images), labels, jnp.arange(COUNT), jnp.int32(1))


@functools.partial(jax.jit, static_argnums=0)
def augmented(config: AugmentConfig, given: Batch, step: int) -> tuple[jax.Array, jax.Array]:
    images, masks = augment(config, Segmentation(6), PLAIN, 0, step, given)
    return images[..., 0], masks


@pytest.mark.parametrize(
    "fields",
    [
        {"crop_padding": 3},
        {"crop_padding": 3, "crop_mode": "constant"},
        {"flip": "random"},
        {"flip": "alternating"},
        {"crop_padding": 3, "crop_mode": "constant", "flip": "random"},
    ],
    ids=str,
)
def test_what_moves_whole_pixels_moves_masks_exactly(fields: dict[str, Any]):
    images, masks = augmented(AugmentConfig(**OFF | fields), batch(40 * MASKS[..., None]), 3)
    images, masks = np.rint(np.asarray(images)), np.asarray(masks)
    inside = masks != IGNORED
    np.testing.assert_array_equal(images[inside], 40 * masks[inside].astype(int))
    assert not np.array_equal(masks, MASKS)
    if fields.get("crop_mode") == "constant":
        # The mean color, 0, is drawn where nothing of the image is.
        assert 0.05 < 1 - inside.mean() < 0.5
        assert not images[~inside].any()
    else:
        assert inside.all()


@pytest.mark.parametrize(
    "fields",
    [{"resized_crop_area": 0.3}, {"rotation": 40.0}, {"zoom": 2.0}, {"rotation": 180.0, "zoom": 1.5, "flip": "random"}],
    ids=str,
)
def test_what_resamples_pixels_keeps_masks_with_them(fields: dict[str, Any]):
    # White is class 1. The nearest pixel has a quarter or more of the weight of the four that are mixed.
    masks = RNG.integers(0, 2, MASKS.shape).astype(np.uint8)
    images, moved = augmented(AugmentConfig(**OFF | fields), batch(255 * masks[..., None], masks), 3)
    images, moved = np.asarray(images), np.asarray(moved)
    assert (images[moved == 1] >= 62).all() and (images[moved == 0] <= 193).all()
    assert set(np.unique(moved)) <= {0, 1, IGNORED}
    assert (moved != IGNORED).mean() > 0.4
    assert not np.array_equal(moved, masks)


def test_colors_change_the_image_alone():
    images = RNG.integers(0, 256, (COUNT, SIDE, SIDE, 1)).astype(np.uint8)
    changed, masks = augmented(AugmentConfig(**OFF, color_jitter=0.5), batch(images), 3)
    assert not np.allclose(changed, images[..., 0])
    np.testing.assert_array_equal(masks, MASKS)


def test_a_mask_depends_on_the_seed_and_the_step_alone():
    config = AugmentConfig(crop_padding=2, rotation=20.0, zoom=1.2)
    given = batch(40 * MASKS[..., None])
    _, one = augmented(config, given, 3)
    _, again = augmented(config, given, 3)
    _, later = augmented(config, given, 4)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, later)


def test_the_nearest_pixel_is_pillows():
    maps = random_rotation_maps(jax.random.key(0), MASKS.shape, 70.0, 1.7)
    ours = np.asarray(affine_nearest(jnp.asarray(MASKS)[..., None], maps, fill=0))[..., 0]
    for mask, numbers, result in zip(MASKS, np.asarray(maps, np.float64), ours, strict=True):
        theirs = Image.fromarray(mask).transform(
            (SIDE, SIDE), Image.Transform.AFFINE, numbers.tolist(), Image.Resampling.NEAREST
        )
        # Of a point on the edge between two pixels, rounding decides.
        assert (np.asarray(theirs) == result).mean() > 0.98


def test_a_rotation_keeps_the_center_and_the_area_by_its_zoom():
    maps = np.asarray(random_rotation_maps(jax.random.key(1), (500, 20, 30), 30.0, 2.0))
    a, b, c, d, e, f = maps.T
    np.testing.assert_allclose(a * 15 + b * 10 + c, 15.0, atol=1e-4)
    np.testing.assert_allclose(d * 15 + e * 10 + f, 10.0, atol=1e-4)
    areas, angles = a * e - b * d, np.degrees(np.arctan2(b, a))
    assert 0.25 <= areas.min() < 0.3 and 3.4 < areas.max() <= 4.0 + 1e-4
    assert -30.001 <= angles.min() < -28 and 28 < angles.max() <= 30.001


def test_a_box_is_read_alike_by_both():
    images = np.repeat(255 * (MASKS[..., None] > 2).astype(np.uint8), 3, -1)
    maps, box = random_crop_maps(jax.random.key(2), images.shape, 0.3)
    moved = np.asarray(affine(jnp.asarray(images), maps, box=box))[..., 0]
    nearest = np.asarray(affine_nearest(jnp.asarray(images), maps, box=box))[..., 0]
    assert (moved[nearest == 255] >= 62).all() and (moved[nearest == 0] <= 193).all()
