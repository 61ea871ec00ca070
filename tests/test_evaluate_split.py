"""Evaluation counts each example exactly once, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import RESNET
from tiny import NUM_CLASSES, tiny_dataset, tiny_model

from convnext_jax.batches.preprocess import Normalization
from convnext_jax.batches.resident import put_split
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
        put_split(DATASET.test, sharding),
        task=Classification(NUM_CLASSES),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        batch_size=batch_size,
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
