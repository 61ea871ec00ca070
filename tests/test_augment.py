"""The policy that puts the families of augmentation together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import photographs

from convnext_jax.augment.pipeline import augment, check_augment
from convnext_jax.batches.resident import Batch, normalize
from convnext_jax.config import AugmentConfig
from convnext_jax.errors import UserError
from convnext_jax.sharding import batch_sharded, make_mesh, replicated

IMAGES = photographs(32, 32)
BATCH = Batch(jnp.asarray(IMAGES), jnp.arange(12, dtype=jnp.int32), jnp.arange(100, 112, dtype=jnp.int32), jnp.int32(3))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
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

compiled = jax.jit(augment, static_argnums=(0, 4, 5))


def augmented(config: AugmentConfig, seed: int = 0, step: int = 0) -> np.ndarray:
    return np.asarray(compiled(config, jnp.uint32(seed), jnp.int32(step), BATCH, MEAN, STD)[0])


def test_nothing_on_only_normalises():
    images, targets = augment(OFF, 0, 0, BATCH, MEAN, STD)
    np.testing.assert_array_equal(images, normalize(BATCH.images, MEAN, STD))
    np.testing.assert_array_equal(targets.main(), BATCH.labels)
    assert (targets.share == 1).all()


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


def test_eight_devices_give_the_images_of_one_and_send_none_to_each_other():
    mesh = make_mesh()
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:4]]) if leaf.ndim else leaf, BATCH)
    shardings = Batch(*[batch_sharded(mesh)] * 3, replicated(mesh))
    arguments = (EVERYTHING, jnp.uint32(3), jnp.int32(5))
    expected = compiled(*arguments, twice, MEAN, STD)
    program = compiled.lower(*arguments, jax.device_put(twice, shardings), MEAN, STD).compile()
    found = program(*arguments[1:], jax.device_put(twice, shardings))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), found, expected)
    text = program.as_text()
    assert "u8[2,32,32,3]" in text
    assert not any(word in text for word in ("all-gather", "all-to-all", "collective-permute"))


def test_padding_that_reflection_cannot_fill_is_refused():
    check_augment(AugmentConfig(crop_padding=5), 6, 7)
    check_augment(AugmentConfig(crop_padding=6, crop_mode="constant"), 6, 7)
    with pytest.raises(UserError, match=r"crop_padding=6: .*6x7 pixels; at most 5"):
        check_augment(AugmentConfig(crop_padding=6), 6, 7)
