"""The two-dimensional LSTM against NumPy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import images, initializer, linear, sigmoid, with_random_weights

from convnext_jax.layers.bilstm2d import BiLSTM2D


def lstm(x: np.ndarray, params: Any) -> np.ndarray:
    """Along the first axis of [T,N,C]."""
    hidden = params["recurrent_kernel"].shape[0]
    cell, state, outputs = np.zeros((x.shape[1], hidden)), np.zeros((x.shape[1], hidden)), []
    for step in x:
        gates = linear(step, params["input"]) + state @ params["recurrent_kernel"]
        enter, forget, value, leave = np.split(gates, 4, -1)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(value)
        state = sigmoid(leave) * np.tanh(cell)
        outputs.append(state)
    return np.stack(outputs)


@pytest.mark.parametrize("size", [(3, 5), (1, 4), (1, 1)])
def test_values(size: tuple[int, int]) -> None:
    layer, params = with_random_weights(BiLSTM2D(initializer(), 8))
    x, maps = images(2, *size, 8), []
    for image in x.astype(np.float64):  # [H,W,C]
        down, across = params["vertical"], params["horizontal"]
        turned = image.transpose(1, 0, 2)
        parts = [
            lstm(image, down["forward"]),
            lstm(image[::-1], down["backward"])[::-1],
            lstm(turned, across["forward"]).transpose(1, 0, 2),
            lstm(turned[::-1], across["backward"])[::-1].transpose(1, 0, 2),
        ]
        maps.append(linear(np.concatenate(parts, -1), params["project"]))
    np.testing.assert_allclose(layer(jnp.asarray(x)), np.stack(maps), rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_bfloat16_and_close() -> None:
    layer, _ = with_random_weights(BiLSTM2D(initializer(), 8))
    x = images(2, 3, 5, 8)
    half = layer(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), layer(jnp.asarray(x)), atol=0.05)
