"""Squeeze-and-excitation against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import images, initializer, linear, relu, sigmoid, silu, with_random_weights

from convnext_jax.layers.squeeze_excitation import SqueezeExcitation


@pytest.mark.parametrize(
    ("options", "activation", "gate"),
    [
        ({}, relu, sigmoid),
        ({"activation": jax.nn.silu, "gate": jax.nn.hard_sigmoid}, silu, lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0)),
    ],
)
def test_values(options: dict, activation, gate) -> None:
    layer, params = with_random_weights(SqueezeExcitation(initializer(), 8, 3, **options))
    assert params["reduce"]["kernel"].shape == (8, 3) and params["expand"]["kernel"].shape == (3, 8)
    x = images(2, 4, 5, 8)
    exact = x.astype(np.float64)
    scale = gate(linear(activation(linear(exact.mean((1, 2)), params["reduce"])), params["expand"]))
    np.testing.assert_allclose(layer(jnp.asarray(x)), exact * scale[:, None, None], rtol=1e-5, atol=1e-6)


def test_bfloat16_stays_bfloat16() -> None:
    layer, _ = with_random_weights(SqueezeExcitation(initializer(), 8, 3))
    x = images(2, 4, 5, 8)
    half = layer(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), layer(jnp.asarray(x)), atol=0.05)
