"""LeNet-5 against the paper written out in float64 NumPy, with random weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, images, linear, max_pool, relu, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import count_parameters, create_model, split_model
from convnext_jax.models.lenet import LeNetArchitecture

SMALL = LeNetArchitecture((2, 3, 5), hidden=4)


@pytest.mark.parametrize("side", [(32, 32), (35, 44)])
def test_logits_and_features_are_those_of_the_paper(side: tuple[int, int]) -> None:
    model, params = with_random_weights(create_model(SMALL, num_classes=5))
    x = images(2, *side, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    y = relu(conv(x.astype(np.float64), params["stem"]["conv"]))
    for found, stage in zip(features, params["stages"].values(), strict=True):
        y = relu(conv(max_pool(y, 2, 2), stage["blocks"]["0"]["conv"]))
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
    hidden = relu(linear(y.mean((1, 2)), params["hidden"]))
    np.testing.assert_allclose(logits, linear(hidden, params["head"]), rtol=1e-4, atol=1e-5)


def test_a_gray_image_of_32_pixels_gives_the_parameters_that_are_cited() -> None:
    model = create_model("lenet5", num_classes=10, in_channels=1)
    assert count_parameters(split_model(model)[1]) == 61_706
    maps = jax.eval_shape(model.features, jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32))
    assert [array.shape for array in maps] == [(2, 10, 10, 16), (2, 1, 1, 120)]


def test_an_image_below_32_pixels_is_refused() -> None:
    with pytest.raises(UserError, match="28x32 pixels are too small .* works is 32x32; enlarge them or choose another"):
        create_model(SMALL, num_classes=5)(jnp.zeros((1, 28, 32, 3)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": (6, 16)}, "dims=(6, 16): must be three positive numbers"),
        ({"dims": (6, 0, 120)}, "dims=(6, 0, 120): must be three positive numbers"),
        ({"hidden": 0}, "hidden=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        LeNetArchitecture(**fields)
