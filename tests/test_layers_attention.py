"""Self-attention against NumPy, one head at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attention, images, initializer, with_random_weights

from convnext_jax.layers.attention import MultiHeadAttention


@pytest.mark.parametrize(("heads", "qkv_bias"), [(1, True), (4, True), (2, False)])
def test_values(heads: int, qkv_bias: bool) -> None:
    layer, params = with_random_weights(MultiHeadAttention(initializer(), 8, heads, qkv_bias=qkv_bias))
    assert ("bias" in params["qkv"]) == qkv_bias and "bias" in params["project"]
    x = 3.0 * images(2, 5, 8)
    found, expected = layer(jnp.asarray(x)), attention(x.astype(np.float64), params, heads)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_tokens_does_not_matter() -> None:
    layer, _ = with_random_weights(MultiHeadAttention(initializer(), 8, 2))
    x = images(1, 6, 8)
    np.testing.assert_allclose(layer(x[:, ::-1]), layer(x)[:, ::-1], rtol=1e-5, atol=1e-6)


def test_large_scores_in_bfloat16_stay_finite() -> None:
    layer, _ = with_random_weights(MultiHeadAttention(initializer(), 8, 2))
    found = layer(jnp.asarray(300.0 * images(2, 5, 8), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16 and bool(jnp.isfinite(found).all())
