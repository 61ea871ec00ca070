"""Airbench's networks against float64 NumPy, with random weights, and what they take from the images."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import FAMILIES
from numpy_layers import batch_norm, conv, gelu, images, linear, max_pool, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.layers.whitening import EPSILON, whitening_kernel
from convnext_jax.models import create_model, split_model
from convnext_jax.models.airbench import AirbenchArchitecture


@pytest.mark.parametrize("depth", [2, 3])
def test_logits_and_features_are_those_of_the_definition(depth: int) -> None:
    architecture = AirbenchArchitecture((25, 26), depth, patch_size=2, logit_scale=0.5)
    model, params = with_random_weights(create_model(architecture, num_classes=5))
    x = images(2, 12, 15, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    y = gelu(conv(x.astype(np.float64), params["stem"]["whitening"]))
    for found, stage in zip(features, params["stages"].values(), strict=True):
        convs, norms = (list(stage["blocks"]["0"][name].values()) for name in ("convs", "norms"))

        def norm(y, number, norms=norms):
            return batch_norm(y, norms[number] | {"scale": 1.0})

        first = gelu(norm(max_pool(conv(y, convs[0], padding=1), 2, 2), 0))
        y = norm(conv(first, convs[1], padding=1), 1)
        if depth == 3:
            y = first + norm(conv(gelu(y), convs[2], padding=1), 2)
        y = gelu(y)
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, linear(0.5 * y.max((1, 2)), params["head"]), rtol=1e-4, atol=1e-4)


def correlated_images(count: int) -> np.ndarray:
    noise = images(count, 13, 13, 3)
    smooth = noise[:, 1:, 1:] + noise[:, :-1, 1:] + noise[:, 1:, :-1]
    return smooth @ np.array([[1, 0.5, 0.2], [0, 1, 0.3], [0.1, 0, 1]], np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_uncorrelated_after_whitening(channels: int) -> None:
    x = correlated_images(200)[..., :channels]
    kernel = whitening_kernel(x, 2)
    half = 4 * channels
    assert kernel.shape == (2, 2, channels, 2 * half) and kernel.dtype == np.float32
    y = conv(x.astype(np.float64), {"kernel": kernel.astype(np.float64)}).reshape(-1, 2 * half)
    np.testing.assert_array_equal(kernel[..., half:], -kernel[..., :half])
    covariance = y[:, :half].T @ y[:, :half] / len(y)
    # The variance of a component is a little below 1, by what is added to it.
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(off).max() < 1e-3 and 0.9 < np.diag(covariance).min() and np.diag(covariance).max() < 1
    assert EPSILON < 1e-3


def test_a_black_picture_does_not_divide_by_zero() -> None:
    assert np.isfinite(whitening_kernel(np.zeros((3, 8, 8, 3), np.float32), 2)).all()


def test_convolutions_start_as_the_identity() -> None:
    model = create_model(AirbenchArchitecture((24, 30)), num_classes=5)
    x = images(1, 9, 9, 24)
    first, second = (model.stages[stage].blocks[0].convs[0] for stage in (0, 1))
    np.testing.assert_allclose(first(x), x, rtol=1e-6)
    y = np.asarray(second(x))
    np.testing.assert_allclose(y[..., :24], x, rtol=1e-6)
    assert 0.5 < y[..., 24:].std() < 2  # drawn by their fan-in


def test_the_kernel_that_whitens_is_not_learned() -> None:
    definition, params, batch_stats = split_model(create_model(FAMILIES["airbench"], num_classes=5))
    assert set(params["stem"]["whitening"]) == {"bias"} and set(batch_stats["stem"]["whitening"]) == {"kernel"}


def test_a_backbone_takes_the_statistics_of_its_network() -> None:
    model = create_model(FAMILIES["airbench"], task="segmentation", num_classes=5)
    own = model.statistics_of(correlated_images(4))
    expected = whitening_kernel(correlated_images(4), 2)
    assert list(own) == ["backbone/stem/whitening/kernel"]
    np.testing.assert_array_equal(own["backbone/stem/whitening/kernel"], expected)


def test_the_smallest_image_leaves_a_pixel() -> None:
    model = create_model("airbench94", num_classes=5)
    assert jax.eval_shape(model.features, jnp.zeros((1, 9, 9, 3)))[-1].shape == (1, 1, 1, 256)
    with pytest.raises(UserError, match="8x9 pixels are too small .* works is 9x9; enlarge them or choose fewer"):
        model(jnp.zeros((1, 8, 9, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": ()}, "dims=(): must be positive numbers, one for each block"),
        ({"dims": (64, 0)}, "dims=(64, 0): must be positive numbers"),
        ({"depth": 4}, "depth=4: must be 2 or 3"),
        ({"patch_size": 0}, "patch_size=0: must be 1 or more"),
        ({"momentum": 0.0}, "momentum=0.0: must be in (0, 1]"),
        ({"logit_scale": 0.0}, "logit_scale=0.0: must be positive"),
    ],
)
def test_impossible_architectures_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        AirbenchArchitecture(**fields)
