"""RandAugment and TrivialAugment: which operations come, how strong, and how often."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from photographs import photographs

from convnext_jax.augment.operations import Operation, apply_operation
from convnext_jax.augment.randaugment import RANDAUGMENT, TRIVIALAUGMENT, randaugment, trivial_augment

FILL = jnp.asarray([125, 123, 114], jnp.uint8)
IMAGE = photographs(16, 20)[2]
apply = jax.jit(apply_operation)


# One size of a batch, so that little is compiled.
BATCH = jnp.asarray(np.tile(IMAGE, (1500, 1, 1, 1)))


@functools.partial(jax.jit, static_argnames="layers")
def rand(images: jax.Array, fill: jax.Array, **settings: float) -> jax.Array:
    return randaugment(jax.random.key(0), images, fill, **settings)


# timm's `rand-m7-inc1` at 16x20 pixels, computed by hand: what each operation is given at magnitude 7.
MAGNITUDE_7 = {
    Operation.AUTO_CONTRAST: (0.0,),
    Operation.EQUALIZE: (0.0,),
    Operation.INVERT: (0.0,),
    Operation.ROTATE: (21.0, -21.0),
    Operation.POSTERIZE: (2.0,),
    Operation.SOLARIZE: (77.0,),
    Operation.SOLARIZE_ADD: (77.0,),
    Operation.COLOR: (1.63, 0.37),
    Operation.CONTRAST: (1.63, 0.37),
    Operation.BRIGHTNESS: (1.63, 0.37),
    Operation.SHARPNESS: (1.63, 0.37),
    Operation.SHEAR_X: (0.21, -0.21),
    Operation.SHEAR_Y: (0.21, -0.21),
    Operation.TRANSLATE_X: (6.3, -6.3),
    Operation.TRANSLATE_Y: (5.04, -5.04),
}


def nearest_result(images: np.ndarray, results: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image which of the results it is, and the largest difference from it."""
    difference = np.abs(images[:, None].astype(np.int16) - results[None]).reshape(len(images), len(results), -1)
    which = difference.mean(-1).argmin(1)
    return which, difference.max(-1)[np.arange(len(images)), which]


def test_randaugment_draws_every_operation_at_its_magnitude():
    batch = len(BATCH)
    found = np.asarray(rand(BATCH, FILL, layers=1, magnitude=7.0, magnitude_std=0.0, probability=0.8))
    kinds = [(operation, value) for operation, values in MAGNITUDE_7.items() for value in values]
    kinds = [(Operation.IDENTITY, 0.0), *kinds]
    operations, values = (jnp.asarray(column) for column in zip(*kinds, strict=True))
    results = apply(BATCH[: len(kinds)], operations.astype(jnp.int32), values.astype(jnp.float32), FILL)
    which, difference = nearest_result(found, np.asarray(results))
    assert difference.max() <= 1
    counts = np.bincount(which, minlength=len(kinds))
    expected = np.array([0.2] + [0.8 / 15 / len(MAGNITUDE_7[operation]) for operation, _ in kinds[1:]])
    deviation = np.sqrt(batch * expected * (1 - expected))
    assert (np.abs(counts - batch * expected) < 5 * deviation).all()


def test_the_magnitude_varies_by_its_deviation_and_stays_in_range():
    images = jnp.full_like(BATCH, 100)

    def values(std: float) -> set[int]:
        found = rand(images, jnp.uint8([100] * 3), layers=1, magnitude=9.0, magnitude_std=std, probability=1.0)
        return set(np.unique(found[:, 0, 0]).tolist())

    # Of a gray image: one bit, brightness 0.19 and 1.81, nothing, inverted, 99 added; a level less where truncated.
    expected = {0, 19, 100, 155, 181, 199}
    assert {value if value in expected else value + 1 for value in values(0.0)} == expected
    assert len(values(0.5)) > 20
    # At magnitude 10, beyond which there is nothing, 110 is added.
    assert max(values(5.0)) == 210


def test_layers_follow_one_another_and_draw_anew():
    settings = {"magnitude": 5.0, "magnitude_std": 0.0, "probability": 1.0}
    one, two, again = (np.asarray(rand(BATCH, FILL, layers=layers, **settings)) for layers in (1, 2, 2))
    np.testing.assert_array_equal(two, again)
    assert (one != two).any((1, 2, 3)).mean() > 0.8
    assert len({image.tobytes() for image in two}) > 4 * len({image.tobytes() for image in one})


def test_trivial_augment_draws_every_operation_and_strength():
    found = np.asarray(jax.jit(trivial_augment)(jax.random.key(0), BATCH, FILL))
    strengths = np.arange(31) / 30
    kinds = [(Operation.IDENTITY, 0.0)]
    for each in TRIVIALAUGMENT:
        for strength in strengths:
            change = (each.end - each.start) * strength
            kinds += [(each.operation, each.start + change)] + [(each.operation, each.start - change)] * each.mirrored
    operations, values = (jnp.asarray(column) for column in zip(*kinds, strict=True))
    results = np.asarray(apply(BATCH[: len(kinds)], operations.astype(jnp.int32), values.astype(jnp.float32), FILL))
    known = {result.tobytes() for result in results}
    # The last digit of a strength may differ, and with it a pixel; nearly all are the very same.
    assert np.mean([image.tobytes() in known for image in found]) > 0.9
    assert 1 / 14 - 0.04 < (found == IMAGE).all((1, 2, 3)).mean() < 0.25


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("policy", [randaugment, trivial_augment])
def test_images_of_any_channels_are_augmented_alike(policy: Callable[..., jax.Array], channels: int):
    if policy is randaugment:
        policy = functools.partial(randaugment, layers=2, magnitude=7.0, probability=1.0)
    images, fill = np.concatenate([BATCH[:200], BATCH[:200, ..., :1]], -1)[..., -channels:], jnp.uint8([9, 90, 50, 200])
    found = np.asarray(jax.jit(policy)(jax.random.key(0), jnp.asarray(images), fill[:channels]))
    assert found.shape == images.shape and found.dtype == np.uint8
    # As many different operations and strengths as images of three channels get.
    assert len({image.tobytes() for image in found}) > 20
    if channels > 1:  # the colors of an image with alpha are those of the image without
        colors = jax.jit(policy)(jax.random.key(0), jnp.asarray(images[..., :-1]), fill[: channels - 1])
        np.testing.assert_array_equal(found[..., :-1], colors)


@pytest.mark.parametrize("ranges", [RANDAUGMENT, TRIVIALAUGMENT], ids=["randaugment", "trivialaugment"])
def test_no_operation_is_listed_twice(ranges: tuple):
    assert len({each.operation for each in ranges}) == len(ranges)
