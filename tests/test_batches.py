"""Batches as a function of the seed and the step, the calls that an epoch is split into, and normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from convnext_jax.batches.order import EpochOrders, call_length, epoch_order
from convnext_jax.batches.preprocess import Normalization, normalize, resize
from convnext_jax.batches.resident import ResidentSource, abstract_split, put_split
from convnext_jax.batches.source import Batch
from convnext_jax.data.dataset import Split
from convnext_jax.sharding import Sharding, make_mesh

SHARDING = Sharding(make_mesh())


def split_of(count: int, channels: int = 3) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 5, channels), np.uint8)
    return Split(images, np.arange(count, dtype=np.int32)[::-1].copy())


# --- the order of the examples


def test_an_epoch_is_a_permutation_and_each_is_another():
    orders = [np.asarray(epoch_order(seed, epoch, 1000)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Two random permutations agree in one place on average.
        assert (orders[first] == orders[second]).sum() < 10


def test_orders_are_those_of_their_epochs_and_drawn_once_for_all_calls():
    orders = EpochOrders(7, 103, SHARDING.replicated)
    for epoch in (4, 4, 5, 4):
        np.testing.assert_array_equal(orders.order(epoch), epoch_order(7, epoch, 103))
        assert orders.order(epoch) is orders.order(epoch)
    assert orders.order(4).sharding == SHARDING.replicated


# --- the calls of an epoch


@pytest.mark.parametrize(
    ("steps_per_epoch", "most"), [(97, 20), (390, 20), (22, 20), (20, 20), (1, 20), (101, 7), (13, 12), (9, 1)]
)
def test_calls_cover_an_epoch_evenly_from_any_step(steps_per_epoch: int, most: int):
    for first in range(steps_per_epoch):
        step, lengths = 3 * steps_per_epoch + first, []
        while step < 4 * steps_per_epoch:
            lengths.append(call_length(step, steps_per_epoch, most))
            step += lengths[-1]
        assert step == 4 * steps_per_epoch, "a call crosses the end of the epoch"
        assert 1 <= min(lengths) and max(lengths) <= most
        assert max(lengths) - min(lengths) <= 1
        # No more calls than there must be.
        assert len(lengths) == -(-(steps_per_epoch - first) // most)


# --- the batches of a split on the devices


def batches(source: ResidentSource, first_step: int, num_steps: int) -> list[Batch]:
    """The batches of a call, as the steps of a compiled program take them from the feed."""
    feed, take = source.feed(first_step, num_steps), jax.jit(source.batch)
    return [take(feed, index) for index in range(num_steps)]


def test_a_batch_is_a_slice_of_the_order_of_its_epoch():
    split, seed = split_of(103, channels=2), 2**32 - 1
    source = ResidentSource(put_split(split, SHARDING), seed=seed, batch_size=8, sharding=SHARDING)
    assert source.num_examples == 103 and source.steps_per_epoch == 12
    for epoch in (0, 3):
        # As every run has had them since the first: part of its identity.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(jnp.uint32(seed)), 0), epoch)
        order = np.asarray(jax.random.permutation(key, 103))
        for first, num_steps in ((0, 12), (7, 5), (11, 1)):
            found = batches(source, 12 * epoch + first, num_steps)
            assert len(found) == num_steps
            for index, batch in enumerate(found, first):
                indices = order[8 * index : 8 * index + 8]
                np.testing.assert_array_equal(batch.indices, indices)
                np.testing.assert_array_equal(batch.images, split.images[indices])
                np.testing.assert_array_equal(batch.labels, split.labels[indices])
                assert batch.epoch == epoch


def test_the_batches_of_an_epoch_hold_each_example_at_most_once():
    source = ResidentSource(put_split(split_of(43), SHARDING), seed=3, batch_size=8, sharding=SHARDING)
    seen = np.concatenate([batch.indices for batch in batches(source, 10, 5)])
    assert len(seen) == len(np.unique(seen)) == 40


def test_a_batch_is_split_over_the_devices():
    source = ResidentSource(put_split(split_of(40), SHARDING), seed=3, batch_size=16, sharding=SHARDING)
    (batch,) = batches(source, 1, 1)
    assert [shard.data.shape for shard in batch.images.addressable_shards] == [(2, 4, 5, 3)] * 8


def test_shapes_to_compile_with_are_those_of_the_arrays():
    split = split_of(40, channels=1)
    arrays, shapes = put_split(split, SHARDING), abstract_split(split, SHARDING)
    assert arrays.image_shape == shapes.image_shape == (4, 5, 1) and shapes.num_examples == 40
    sources = [ResidentSource(each, seed=0, batch_size=8, sharding=SHARDING) for each in (arrays, shapes)]
    feed, abstract = sources[0].feed(7, 2), sources[1].abstract_feed()
    described = [
        [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(each)] for each in (feed, abstract)
    ]
    assert described[0] == described[1]
    assert jax.tree.structure(feed) == jax.tree.structure(abstract)


def test_take_gathers_images_and_labels_together():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    split = put_split(Split(images, np.arange(20, dtype=np.int32)), SHARDING)
    indices = jnp.array([3, 19, 0, 3], jnp.int32)
    taken, labels = jax.jit(lambda split, indices: split.take(indices))(split, indices)
    np.testing.assert_array_equal(labels, [3, 19, 0, 3])
    np.testing.assert_array_equal(taken, images[[3, 19, 0, 3]])


# --- from pixels to the input of a network


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_normalize_agrees_with_float64(channels: int):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, channels), np.uint8)
    mean, std = (0.5, 0.4, 0.3, 0.9)[:channels], (0.2, 0.25, 0.3, 0.1)[:channels]
    result = normalize(jnp.asarray(images), Normalization(mean, std))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, (images / 255 - np.array(mean)) / np.array(std), atol=4e-6)


def test_images_are_resized_bilinearly():
    images = np.random.default_rng(0).random((2, 8, 8, 2)).astype(np.float32)
    found = resize(jnp.asarray(images), 12)
    for image, ours in zip(images, found, strict=True):
        for channel in range(2):
            expected = Image.fromarray(image[..., channel]).resize((12, 12), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(ours[..., channel], np.asarray(expected), atol=1e-5)
    for size in (None, 8):
        np.testing.assert_array_equal(resize(jnp.asarray(images), size), images)
