"""Evaluation counts each example exactly once, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import RESNET
from tiny import NUM_CLASSES, tiny_dataset, tiny_model

from convnext_jax.batches.evaluation import abstract_batches, put_batches
from convnext_jax.batches.preprocess import Normalization
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import split_model
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tasks.classification import Classification

DATASET = tiny_dataset(test=13)
MODELS = {"convnext": tiny_model(seed=3), "resnet": tiny_model(architecture=RESNET, seed=3)}


def evaluate(name: str, batch_size: int, devices: int) -> dict[str, float]:
    sharding = Sharding(make_mesh(jax.devices()[:devices]))
    definition, params, batch_stats = split_model(MODELS[name])
    return evaluate_split(
        definition,
        *jax.device_put((params, batch_stats), sharding.replicated),
        put_batches(DATASET.test, batch_size, sharding),
        task=Classification(NUM_CLASSES),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        sharding=sharding,
    )


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, float]]:
    """The figures of each network, one example at a time, in float64."""
    return {name: _figures(model) for name, model in MODELS.items()}


def _figures(model) -> dict[str, float]:
    logits = np.asarray(jax.jit(model)((jnp.asarray(DATASET.test.images) / 255.0 - 0.5) / 0.25), np.float64)
    labels = DATASET.test.labels
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(13), labels]
    right = (logits.argmax(-1) == labels).sum()
    assert 0 < right < 13, "a network that is always right or always wrong would not tell much"
    return {"loss": losses.mean(), "top1": right / 13, "top5": 1.0, "examples": 13}


@pytest.mark.parametrize(
    ("name", "batch_size", "devices"),
    [("convnext", 5, 1), ("convnext", 13, 1), ("convnext", 500, 1), ("convnext", 3, 8), ("resnet", 4, 1)],
)
def test_every_example_counts_once(name: str, batch_size: int, devices: int, expected: dict[str, dict[str, float]]):
    figures = evaluate(name, batch_size, devices)
    assert figures == pytest.approx(expected[name], rel=1e-5)
    assert figures["top1"] == expected[name]["top1"]


def test_each_device_has_its_part_of_every_batch_and_no_other():
    sharding = Sharding(make_mesh(fsdp=2))
    batches = put_batches(DATASET.test, 3, sharding)  # one batch of eight and one of five, filled up with the last
    shapes = abstract_batches(DATASET.test, 3, sharding)
    for array, shape in zip(*map(jax.tree.leaves, (batches, shapes)), strict=True):
        assert (array.shape, array.dtype, array.sharding) == (shape.shape, shape.dtype, shape.sharding)
    assert (batches.num_examples, batches.batch_size) == (13, 8)
    expected = DATASET.test.images.reshape(13, -1)[[*range(13), 12, 12, 12]].reshape(2, 8, -1)
    np.testing.assert_array_equal(batches.rows, expected)
    np.testing.assert_array_equal(batches.labels, DATASET.test.labels[[*range(13), 12, 12, 12]].reshape(2, 8))
    assert [shard.data.shape for shard in batches.rows.addressable_shards] == [(2, 1, expected.shape[2])] * 8
