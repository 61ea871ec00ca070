"""Stochastic depth: linear rates, masks independent for each sample and block, mean preserved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convnext_jax.layers.drop_path import draw_branch_scales, drop_path, linear_rates
from convnext_jax.layers.layers import Initializer
from convnext_jax.models.architectures import Architecture

from convnext_jax.models.convnext import ConvNeXt


def test_rates_grow_linearly_over_all_blocks_from_zero() -> None:
    np.testing.assert_allclose(linear_rates(0.3, 4), [0.0, 0.1, 0.2, 0.3])
    assert linear_rates(0.3, 1) == [0.0]
    model = ConvNeXt(
        Initializer(np.random.SeedSequence(0)),
        Architecture((2, 1, 3, 1), (2, 2, 2, 2), stem="patch1", swin_mlp_stages=(2,)),
        num_classes=2,
        in_channels=1,
        drop_path=0.6,
        dtype=jnp.float32,
    )
    # The third block has two branches, of one rate.
    np.testing.assert_allclose(model.drop_rates(), [0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_whole_samples_are_dropped_or_scaled() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3, 3, 2)), jnp.float32)
    (scales,) = draw_branch_scales(jax.random.key(0), [0.25], 64)
    y = np.asarray(drop_path(x, scales))
    kept = np.abs(y).sum((1, 2, 3)) > 0
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(y[kept], np.asarray(x)[kept] / 0.75, rtol=1e-6)
    assert drop_path(x, None) is x


def test_bfloat16_is_scaled_in_float32() -> None:
    x = jnp.asarray([[1.0], [3.0]], jnp.bfloat16)
    y = drop_path(x, jnp.asarray([0.0, 1.0 / 0.9]))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), [[0.0], [np.float32(jnp.bfloat16(3.0 / 0.9))]])


def test_rates_and_means_are_kept() -> None:
    rates, count = np.array([0.0, 0.1, 0.5, 0.9]), 20_000
    scales = np.asarray(draw_branch_scales(jax.random.key(1), rates, count))
    error = 5 * (rates * (1 - rates) / count) ** 0.5
    assert np.all(abs((scales == 0).mean(1) - rates) <= error)
    assert np.all(abs(scales.mean(1) - 1) <= error / (1 - rates))


def test_masks_of_two_branches_are_independent_and_not_nested() -> None:
    count = 20_000
    one, other = np.asarray(draw_branch_scales(jax.random.key(2), [0.5, 0.5], count)) > 0
    # Independent halves meet in a quarter; nested ones, from the same numbers, in a half.
    assert abs((one & other).mean() - 0.25) < 5 * (0.25 * 0.75 / count) ** 0.5


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
