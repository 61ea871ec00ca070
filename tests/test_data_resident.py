"""Batches as a function of (seed, step), and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.batches.resident import EpochOrders, batch_indices, epoch_order, normalize, put_split
from convnext_jax.data import resident
from convnext_jax.data.dataset import Split
from convnext_jax.sharding import make_mesh, replicated


def test_an_epoch_is_a_permutation_and_each_is_another():
    orders = [np.asarray(epoch_order(seed, epoch, 1000)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Two random permutations agree in one place on average.
        assert (orders[first] == orders[second]).sum() < 10


def test_an_order_is_drawn_once_an_epoch(monkeypatch: pytest.MonkeyPatch):
    draws = []

    def counting(*arguments, num_examples):
        jax.debug.callback(lambda epoch: draws.append(int(epoch)), arguments[1])
        return epoch_order(*arguments, num_examples)

    monkeypatch.setattr(resident, "epoch_order", counting)
    orders = EpochOrders(7, 103, replicated(make_mesh()))
    for epoch in (4, 4, 5, 5, 4):
        np.testing.assert_array_equal(orders.order(epoch), epoch_order(7, epoch, 103))
    jax.effects_barrier()
    assert draws == [4, 5, 4]


def test_the_batches_of_an_epoch_hold_each_example_at_most_once():
    order = epoch_order(3, 5, 103)
    steps = range(5 * 10, 6 * 10)  # 103 // 10 steps an epoch
    seen = np.concatenate([batch_indices(order, step, 10) for step in steps])
    assert len(np.unique(seen)) == 100
    np.testing.assert_array_equal(seen, order[:100])


def test_take_gathers_images_and_labels_together():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    split = put_split(Split(images, np.arange(20, dtype=np.int32)), replicated(make_mesh()))
    indices = jnp.array([3, 19, 0, 3], jnp.int32)
    taken, labels = jax.jit(lambda split, indices: split.take(indices))(split, indices)
    np.testing.assert_array_equal(labels, [3, 19, 0, 3])
    np.testing.assert_array_equal(taken, images[[3, 19, 0, 3]])


def test_normalize_agrees_with_float64():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
    expected = (images / 255 - mean) / std
    result = normalize(jnp.asarray(images), mean, std)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
