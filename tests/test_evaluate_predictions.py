"""The logits of a split: the same whatever the batch size and the number of devices, for every kind of view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import RESNET
from scipy.special import log_softmax, softmax
from tiny import tiny_dataset, tiny_model

from convnext_jax.batches.preprocess import Normalization
from convnext_jax.errors import UserError
from convnext_jax.evaluate import predictions
from convnext_jax.evaluate.predictions import Forward, Predictor
from convnext_jax.models import split_model
from convnext_jax.sharding import Sharding, make_mesh

IMAGES = tiny_dataset(test=13).test.images
MODELS = {"convnext": tiny_model(seed=3), "resnet": tiny_model(architecture=RESNET, seed=3)}


def predict(name: str = "convnext", *, devices: int = 1, batch_size: int | None = None, tta: str = "none", **options):
    sharding = Sharding(make_mesh(jax.devices()[:devices]))
    definition, params, batch_stats = split_model(MODELS[name])
    forward = Forward(definition, Normalization((0.5,) * 3, (0.25,) * 3), None, sharding, tta)
    params, batch_stats = jax.device_put((params, batch_stats), sharding.replicated)
    return Predictor(forward, batch_size)(params, batch_stats, options.pop("images", IMAGES), **options)


def directly(images: np.ndarray, name: str = "convnext") -> np.ndarray:
    return np.asarray(jax.jit(MODELS[name])((jnp.asarray(images) / 255.0 - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("name", "batch_size", "devices"),
    [("convnext", 5, 1), ("convnext", 1, 1), ("convnext", None, 1), ("convnext", 3, 8), ("resnet", 4, 2)],
)
def test_every_image_has_its_logits_in_its_place(name: str, batch_size: int | None, devices: int):
    logits = predict(name, batch_size=batch_size, devices=devices)
    assert logits.shape == (13, 4)
    np.testing.assert_allclose(logits, directly(IMAGES, name), rtol=2e-4, atol=2e-5)


def test_a_mirrored_image_has_the_same_probabilities_under_flips():
    there, back = (predict(tta="flip", images=images) for images in (IMAGES, IMAGES[:, :, ::-1]))
    assert np.abs(predict(images=IMAGES[:, :, ::-1]) - predict()).max() > 1e-2, "mirroring makes no difference here"
    np.testing.assert_allclose(there, back, rtol=1e-4, atol=1e-5)


def test_the_probability_of_flips_is_the_mean_of_both():
    both = [softmax(directly(images).astype(np.float64), axis=-1) for images in (IMAGES, IMAGES[:, :, ::-1])]
    np.testing.assert_allclose(predict(tta="flip"), np.log(np.mean(both, axis=0)), rtol=1e-4, atol=1e-5)


def test_shifts_are_to_the_four_corners_and_mirrored():
    wide = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")  # a sixteenth of 16 pixels is one
    views = [wide[:, y : y + 16, x : x + 16] for y, x in ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))]
    views += [view[:, :, ::-1] for view in views]
    expected = np.mean([softmax(directly(view).astype(np.float64), axis=-1) for view in views], axis=0)
    np.testing.assert_allclose(log_softmax(predict(tta="shifts"), axis=-1), np.log(expected), rtol=1e-4, atol=1e-5)


def test_a_change_of_the_images_knows_which_they_are():
    def blacken_odd(images: jax.Array, numbers: jax.Array) -> jax.Array:
        return jnp.where((numbers % 2 == 1)[:, None, None, None], 0, images).astype(jnp.uint8)

    changed = IMAGES.copy()
    changed[1::2] = 0
    for batch_size, devices in ((4, 1), (13, 1), (5, 8)):
        logits = predict(change=jax.jit(blacken_odd), batch_size=batch_size, devices=devices)
        np.testing.assert_allclose(logits, directly(changed), rtol=2e-4, atol=2e-5)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    real = predictions.program_bytes

    def record(program):
        sizes.append(program.in_avals[0][2].shape[0])
        return real(program)

    definition, params, batch_stats = split_model(MODELS["convnext"])
    sharding = Sharding(make_mesh(jax.devices()[:1]))
    forward = Forward(definition, Normalization((0.5,) * 3, (0.25,) * 3), None, sharding)
    needed = {count: real(Predictor(forward).compile(params, batch_stats, IMAGES[:count])[0]) for count in (13, 4)}
    assert needed[4] < needed[13]
    monkeypatch.setattr(predictions, "program_bytes", record)
    monkeypatch.setattr(predictions, "memory_limit", lambda sharding: needed[4])
    logits = predict()
    assert sizes[0] == 13 and sizes[-1] <= 4
    np.testing.assert_allclose(logits, directly(IMAGES), rtol=2e-4, atol=2e-5)
    monkeypatch.setattr(predictions, "memory_limit", lambda sharding: 1)
    with pytest.raises(UserError, match=r"the network needs .* MiB for one image, and there is less memory"):
        predict()
