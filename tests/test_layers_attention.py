"""Self-attention against NumPy, one head, and one window, at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attention, images, initializer, with_random_weights

from convnext_jax.layers.attention import (
    MultiHeadAttention,
    RelativePositionBias,
    SequencePooling,
    WindowAttention,
    resize_relative_positions,
)


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


def test_a_bias_is_added_to_the_scores_and_a_mask_hides_keys() -> None:
    layer, params = with_random_weights(MultiHeadAttention(initializer(), 8, 2))
    x, bias, mask = images(3, 5, 8), images(1, 2, 5, 5, seed=4), images(3, 1, 5, 5, seed=5) > 0
    mask |= np.eye(5, dtype=bool)  # each sees itself
    expected = attention(x.astype(np.float64), params, 2, np.where(mask, bias, -np.inf))
    np.testing.assert_allclose(layer(x, bias=jnp.asarray(bias), mask=jnp.asarray(mask)), expected, rtol=1e-4, atol=1e-5)


def windows(height: int, width: int, size: int, shifts: tuple[int, int]) -> list[list[tuple[int, int]]]:
    """The places of each window; a window at the edge of a shifted map is what is left of it."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in itertools.product(range(height), range(width)):
        groups.setdefault(((row - shifts[0]) // size, (column - shifts[1]) // size), []).append((row, column))
    return list(groups.values())


# Whole windows; a map that is filled up; one below a window; one that is a single window in one direction.
@pytest.mark.parametrize("size", [(8, 4), (6, 9), (2, 3), (3, 8)])
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_in_windows(size: tuple[int, int], shifted: bool) -> None:
    layer, params = with_random_weights(WindowAttention(initializer(), 8, 2, window=4, shifted=shifted))
    x, (height, width) = images(2, *size, 8), (-(-side // 4) * 4 for side in size)
    padded = np.zeros((2, height, width, 8))
    padded[:, : size[0], : size[1]] = x
    table, expected = params["position"]["table"], np.zeros_like(padded)
    for places in windows(height, width, 4, tuple(2 if shifted and side > 4 else 0 for side in (height, width))):
        apart = np.array(places)[:, None] - np.array(places)[None]  # [N,N,2]
        bias = table[(apart[..., 0] + 3) * 7 + apart[..., 1] + 3].transpose(2, 0, 1)[None]
        rows, columns = np.transpose(places)
        expected[:, rows, columns] = attention(padded[:, rows, columns], params["attention"], 2, bias)
    np.testing.assert_allclose(jax.jit(layer)(x), expected[:, : size[0], : size[1]], rtol=1e-4, atol=1e-5)


def test_a_table_of_relative_positions_is_resized_smoothly() -> None:
    rows, columns = np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7), indexing="ij")
    table = np.stack([rows, columns], -1).reshape(49, 2).astype(np.float32)
    found = np.asarray(resize_relative_positions(jnp.asarray(table), 6)).reshape(11, 11, 2)
    # A slope stays one, the middle stays in the middle.
    assert (np.diff(found[:, 0, 0]) > 0).all() and (np.diff(found[0, :, 1]) > 0).all()
    np.testing.assert_allclose(found[5, 5], 0, atol=1e-6)
    np.testing.assert_allclose(found[3:8, 5, 0], np.arange(-2, 3) * 7 / 33, atol=1e-6)
    np.testing.assert_allclose(resize_relative_positions(jnp.asarray(table), 4), table)


def test_a_bias_is_one_for_each_distance() -> None:
    layer, params = with_random_weights(RelativePositionBias(initializer(), 2, 1))
    t = params["table"][:, 0]  # for rows -1 to 1, for columns -1 to 1
    expected = [[t[4], t[3], t[1], t[0]], [t[5], t[4], t[2], t[1]], [t[7], t[6], t[4], t[3]], [t[8], t[7], t[5], t[4]]]
    np.testing.assert_allclose(layer()[0, 0], expected, rtol=1e-6)


def test_sequence_pooling_is_a_mean_weighted_by_the_scores() -> None:
    layer, params = with_random_weights(SequencePooling(initializer(), 4))
    x = images(3, 5, 4).astype(np.float64)
    weights = np.exp(x @ params["score"]["kernel"] + params["score"]["bias"])
    np.testing.assert_allclose(layer(x.astype(np.float32)), (weights * x).sum(1) / weights.sum(1), rtol=1e-5, atol=1e-6)
