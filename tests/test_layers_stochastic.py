"""Stochastic depth and dropout: rates, masks that are independent of each other, means that are preserved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import images

from convnext_jax.layers.parameters import Role
from convnext_jax.layers.stochastic import add_branch, draw_branch_scales, dropout, layer_scale, linear_rates
from convnext_jax.models import create_model
from convnext_jax.models.convnext import ConvNeXtArchitecture


def test_rates_grow_linearly_over_all_blocks_from_zero() -> None:
    np.testing.assert_allclose(linear_rates(0.3, 4), [0.0, 0.1, 0.2, 0.3])
    assert linear_rates(0.3, 1) == [0.0]
    architecture = ConvNeXtArchitecture((2, 1, 3, 1), (2, 2, 2, 2), stem="patch1", swin_mlp_stages=(2,))
    model = create_model(architecture, num_classes=2, drop_path=0.6)
    # The third block has two branches, of one rate.
    np.testing.assert_allclose(model.drop_rates(), [0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_branches_of_whole_samples_are_dropped_or_scaled() -> None:
    x, branch = images(64, 3, 3, 2), images(64, 3, 3, 2, seed=4)
    (scales,) = draw_branch_scales(jax.random.key(0), [0.25], 64)
    added = np.asarray(add_branch(x, branch, scales)) - x
    kept = np.abs(added).max((1, 2, 3)) > 1e-6
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(added[kept], branch[kept] / 0.75, rtol=1e-4, atol=1e-5)


def test_a_branch_is_scaled_and_added_in_float32() -> None:
    x, branch = jnp.asarray([[1.0], [1.0]], jnp.bfloat16), jnp.asarray([[1.0], [3.0]], jnp.bfloat16)
    y = add_branch(x, branch, jnp.asarray([0.0, 1.0 / 0.9]), layer_scale(1, 0.1))
    assert y.dtype == jnp.bfloat16
    assert y.tolist() == [[1.0], [float(jnp.bfloat16(1.0 + 0.3 / 0.9))]]


def test_without_scales_the_branch_is_added_as_it_is() -> None:
    x, branch = images(2, 3), images(2, 3, seed=4)
    np.testing.assert_allclose(add_branch(x, branch, None), x + branch, rtol=1e-6)


def test_layer_scale_starts_where_it_is_told_and_0_leaves_it_out() -> None:
    scale = layer_scale(3, 0.25)
    assert scale[...].tolist() == [0.25] * 3 and scale.get_metadata()["role"] is Role.LAYER_SCALE
    assert layer_scale(3, 0.0) is None


def test_rates_and_means_are_kept() -> None:
    rates, count = np.array([0.0, 0.1, 0.5, 0.9]), 20_000
    scales = np.asarray(draw_branch_scales(jax.random.key(1), rates, count))
    error = 5 * (rates * (1 - rates) / count) ** 0.5
    assert np.all(abs((scales == 0).mean(1) - rates) <= error)
    assert np.all(abs(scales.mean(1) - 1) <= error / (1 - rates) + 1e-6)


def test_masks_of_two_branches_are_independent_and_not_nested() -> None:
    count = 20_000
    one, other = np.asarray(draw_branch_scales(jax.random.key(2), [0.5, 0.5], count)) > 0
    # Independent halves meet in a quarter; nested ones, from the same numbers, in a half.
    assert abs((one & other).mean() - 0.25) < 5 * (0.25 * 0.75 / count) ** 0.5


def test_dropout_drops_single_values_and_keeps_the_mean() -> None:
    x, rate = jnp.ones((100, 200)), 0.25
    y = np.asarray(dropout(x, rate, jax.random.key(0)))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(y.mean() - 1) < 5 * (rate / (1 - rate) / x.size) ** 0.5
    # Neither rows nor columns are dropped together.
    assert len(np.unique(y, axis=0)) == 100 and len(np.unique(y, axis=1).T) == 200


def test_dropout_without_a_rate_or_a_key_changes_nothing() -> None:
    x = jnp.ones((2, 3))
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert dropout(x, 0.5, None) is x


@pytest.fixture(scope="module")
def forward():
    architecture = ConvNeXtArchitecture((1, 1, 1, 2), (3, 3, 3, 3), stem="patch1", layer_scale=1.0, kernel_size=3)
    model = create_model(architecture, num_classes=2, in_channels=1, drop_path=0.5)
    for stage in model.stages:
        for block in stage.blocks:
            block.project.bias[...] = jnp.full((3,), 0.5, jnp.float32)
    model.head.kernel[...] = jnp.eye(3, 2, dtype=jnp.float32)
    model.norm.scale[...] = jnp.asarray([1.0, 2.0, 3.0], jnp.float32)
    return jax.jit(lambda x, key=None: model(x, key=key))


def test_a_key_turns_it_on_and_alone_decides(forward) -> None:
    batch = jnp.tile(images(1, 8, 8, 1), (32, 1, 1, 1))
    quiet, first, second = forward(batch), forward(batch, jax.random.key(0)), forward(batch, jax.random.key(1))
    np.testing.assert_array_equal(quiet, forward(batch))
    np.testing.assert_array_equal(first, forward(batch, jax.random.key(0)))
    assert not np.array_equal(first, second)
    # One image 32 times: equal without a key, drawn one by one with it.
    assert len(np.unique(np.asarray(quiet), axis=0)) == 1
    assert len(np.unique(np.asarray(first), axis=0)) > 4
