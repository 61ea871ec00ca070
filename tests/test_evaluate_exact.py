"""Evaluation counts each example exactly once, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import NUM_CLASSES, tiny_dataset, tiny_model

from convnext_jax.batches.resident import put_split
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import split_model
from convnext_jax.sharding import make_mesh, replicated

DATASET = tiny_dataset(test=13)
MODEL = tiny_model(seed=3)


def evaluate(batch_size: int, devices: int) -> dict[str, float]:
    mesh = make_mesh(jax.devices()[:devices])
    definition, params, _ = split_model(MODEL)
    return evaluate_split(
        definition,
        jax.device_put(params, replicated(mesh)),
        put_split(DATASET.test, replicated(mesh)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        batch_size=batch_size,
        mesh=mesh,
    )


@pytest.fixture(scope="module")
def expected() -> dict[str, float]:
    """One example at a time, in float64."""
    logits = np.asarray(MODEL((jnp.asarray(DATASET.test.images) / 255.0 - 0.5) / 0.25), np.float64)
    labels = DATASET.test.labels
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(13), labels]
    right = (logits.argmax(-1) == labels).sum()
    assert 0 < right < 13, "a network that is always right or always wrong would not tell much"
    return {"loss": losses.mean(), "top1": right / 13, "top5": 1.0, "examples": 13}


@pytest.mark.parametrize(("batch_size", "devices"), [(5, 1), (13, 1), (500, 1), (3, 8)])
def test_every_example_counts_once(batch_size: int, devices: int, expected: dict[str, float]):
    figures = evaluate(batch_size, devices)
    assert figures == pytest.approx(expected, rel=1e-5)
    assert figures["top1"] == expected["top1"]
    assert NUM_CLASSES < 5
