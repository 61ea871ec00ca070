"""AlexNet against the paper in float64 NumPy, its flattened map in PyTorch's order, its dropout, what is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, images, linear, max_pool, relu, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model
from convnext_jax.models.alexnet import STEMS, AlexNetArchitecture
from convnext_jax.models.torch_import import from_torch

SMALL = AlexNetArchitecture((2, 3, 4, 4, 3), hidden=5, stem="conv3x3_s1", pooled_size=2)


def test_a_flattened_map_has_its_channels_last_here_and_first_in_pytorch() -> None:
    """The layer gives the same for a map, flattened in either order."""
    stage_map, kernel = images(2, 2, 3), images(2 * 2 * 3, 5)
    theirs = SMALL.to_torch("hidden/first/kernel", kernel, "torchvision")
    ours = np.einsum("hwc,hwcd->d", stage_map, kernel.reshape(2, 2, 3, 5))
    np.testing.assert_allclose(theirs @ stage_map.transpose(2, 0, 1).ravel(), ours, rtol=1e-5)
    np.testing.assert_array_equal(from_torch("hidden/first/kernel", theirs, (12, 5), 3), kernel)
    assert from_torch("hidden/first/kernel", theirs, (12, 6), 3) is None


def test_logits_and_features_are_those_of_the_paper() -> None:
    model, params = with_random_weights(create_model(SMALL, num_classes=5))
    x = images(2, 20, 28, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    y = relu(conv(x.astype(np.float64), params["stem"]["conv"], 1, 1))
    for found, stage in zip(features, params["stages"].values(), strict=True):
        y = max_pool(y, 3, 2)
        for block in stage["blocks"].values():
            y = relu(conv(y, block["conv"], 1, block["conv"]["kernel"].shape[0] // 2))
        np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
    y = max_pool(y, 3, 2)  # [2,1,2,3]: the row is repeated, the columns are the map's
    y = relu(linear(np.concatenate([y, y], 1).reshape(2, -1), params["hidden"]["first"]))
    y = relu(linear(y, params["hidden"]["second"]))
    np.testing.assert_allclose(logits, linear(y, params["head"]), rtol=1e-4, atol=1e-5)


def test_dropout_is_on_both_hidden_layers() -> None:
    hidden, params = with_random_weights(create_model(SMALL, num_classes=3, dropout=0.5).hidden)
    hidden.second.kernel[...], hidden.second.bias[...] = jnp.eye(5), jnp.zeros(5)
    x = images(4, 2, 2, 3)
    first = relu(linear(x.reshape(4, -1).astype(np.float64), params["first"]))
    keys = jax.random.split(jax.random.key(0), 400)
    values = np.asarray(jax.jit(jax.vmap(lambda key: hidden(jnp.asarray(x), key=key)))(keys))
    ratios = (values / np.where(first > 0.1, first, 1.0))[:, first > 0.1]
    # Kept by both layers: four times the value; dropped by either: zero.
    assert set(np.unique(np.round(ratios, 3))) == {0.0, 4.0}
    np.testing.assert_allclose((ratios > 0).mean(), 0.25, atol=0.03)


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_pools_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model = create_model(SMALL, num_classes=5, stem=stem)
    smallest = {"conv11x11_s4": 63, "conv3x3_s1": 15, "conv3x3_s2": 29}[stem]

    def run(side: int) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(model, jax.ShapeDtypeStruct((1, side, 2 * smallest, 3), jnp.float32))

    assert run(smallest).shape == (1, 5)
    assert jax.eval_shape(model.features, jnp.zeros((1, smallest, smallest, 3)))[-1].shape == (1, 3, 3, 3)
    with pytest.raises(
        UserError, match=f"works is {smallest}x{smallest}; enlarge them or choose the stem 'conv3x3_s1'"
    ):
        run(smallest - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stem": "conv11x11"},
            "stem='conv11x11': unknown; did you mean 'conv11x11_s4'? allowed: conv11x11_s4, conv3x3_s1",
        ),
        ({"dims": (96, 256)}, "dims=(96, 256): must be five positive numbers"),
        ({"dims": (96, 256, 384, 384, 0)}, "dims=(96, 256, 384, 384, 0): must be five positive numbers"),
        ({"hidden": 0}, "hidden=0: must be 1 or more"),
        ({"pooled_size": 0}, "pooled_size=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["alexnet"], **changes)
