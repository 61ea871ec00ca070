"""Stochastic depth: linear rates, masks independent for each sample and block, mean preserved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.models.architectures import Architecture
from convnext_jax.models.convnext import ConvNeXt, block_key, linear_rates
from convnext_jax.models.layers import Initializer, drop_path


def test_rates_grow_linearly_over_all_blocks_from_zero() -> None:
    np.testing.assert_allclose(linear_rates(0.3, 4), [0.0, 0.1, 0.2, 0.3])
    assert linear_rates(0.3, 1) == [0.0]
    model = ConvNeXt(
        Initializer(np.random.SeedSequence(0)),
        Architecture((2, 1, 3, 1), (2, 2, 2, 2), stem="patch1"),
        num_classes=2,
        in_channels=1,
        drop_path=0.6,
        dtype=jnp.float32,
    )
    rates = [block.drop_rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0.0, 0.6, 7))


def test_whole_samples_are_dropped_or_scaled() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3, 3, 2)), jnp.float32)
    y = np.asarray(drop_path(x, 0.25, jax.random.key(0)))
    kept = np.abs(y).sum((1, 2, 3)) > 0
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert drop_path(x, 0.25, None) is x
    assert drop_path(x, 0.0, jax.random.key(0)) is x


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_mean_are_kept(rate: float) -> None:
    count = 20_000
    y = np.asarray(drop_path(jnp.ones((count, 1)), rate, jax.random.key(1)))
    error = 5 * (rate * (1 - rate) / count) ** 0.5
    assert abs((y == 0).mean() - rate) < error
    assert abs(y.mean() - 1) < error / (1 - rate)


def test_masks_of_two_blocks_are_independent_and_not_nested() -> None:
    key, count = jax.random.key(2), 20_000
    masks = [np.asarray(drop_path(jnp.ones((count, 1)), 0.5, block_key(key, index))) > 0 for index in (0, 1)]
    both = (masks[0] & masks[1]).mean()
    # Independent halves meet in a quarter; nested ones, from one key, in a half.
    assert abs(both - 0.25) < 5 * (0.25 * 0.75 / count) ** 0.5
    assert block_key(None, 0) is None


@pytest.fixture(scope="module")
def forward():
    model = ConvNeXt(
        Initializer(np.random.SeedSequence(0)),
        Architecture((1, 1, 1, 2), (3, 3, 3, 3), stem="patch1", layer_scale=1.0),
        num_classes=2,
        in_channels=1,
        drop_path=0.5,
        dtype=jnp.float32,
    )
    for stage in model.stages:
        for block in stage.blocks:
            block.project.bias[...] = jnp.full((3,), 0.5, jnp.float32)
    model.head.kernel[...] = jnp.eye(3, 2, dtype=jnp.float32)
    model.norm.scale[...] = jnp.asarray([1.0, 2.0, 3.0], jnp.float32)
    return jax.jit(lambda x, key=None: model(x, key=key))


def test_a_key_turns_it_on_and_alone_decides(forward) -> None:
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, 8, 8, 1)), jnp.float32)
    images = jnp.tile(images, (32, 1, 1, 1))
    quiet, first, second = (
        forward(images),
        forward(images, jax.random.key(0)),
        forward(images, jax.random.key(1)),
    )
    np.testing.assert_array_equal(quiet, forward(images))
    np.testing.assert_array_equal(first, forward(images, jax.random.key(0)))
    assert not np.array_equal(first, second)
    # One image 32 times: equal without a key, drawn one by one with it.
    assert len(np.unique(np.asarray(quiet), axis=0)) == 1
    assert len(np.unique(np.asarray(first), axis=0)) > 4
