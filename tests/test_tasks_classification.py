"""Classification: the loss and the figures against float64 and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from convnext_jax.tasks.classification import (
    Classification,
    ClassificationSums,
    MixedLabels,
    cross_entropy,
    label_rank,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(50, 10)).astype(np.float32) * 4
LABELS = RNG.integers(0, 10, 50).astype(np.int32)
TASK = Classification(10)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def figures_of(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    mask = np.ones(len(labels), bool) if mask is None else mask
    return TASK.summarize(TASK.sums(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(mask)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_the_one_against_smoothed_targets(smoothing: float):
    targets = (1 - smoothing) * np.eye(10)[LABELS] + smoothing / 10
    expected = -(targets * log_softmax(LOGITS)).sum(-1)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_mixed_images_is_the_one_against_mixed_targets(smoothing: float):
    others, weight = RNG.integers(0, 10, 50).astype(np.int32), RNG.random(50).astype(np.float32)
    onehot = weight[:, None] * np.eye(10)[LABELS] + (1 - weight[:, None]) * np.eye(10)[others]
    expected = -(((1 - smoothing) * onehot + smoothing / 10) * log_softmax(LOGITS)).sum(-1)
    task = Classification(10, label_smoothing=smoothing)
    targets = MixedLabels(jnp.asarray(LABELS), jnp.asarray(others), jnp.asarray(weight))
    np.testing.assert_allclose(task.loss(jnp.asarray(LOGITS), targets), expected, rtol=1e-5)
    right = LOGITS.argmax(-1) == np.where(weight >= 0.5, LABELS, others)
    top1 = task.training_metrics(jnp.asarray(LOGITS), targets)["top1"]
    np.testing.assert_allclose(top1, right.mean(), rtol=1e-6)


def test_images_that_are_not_mixed_have_one_class():
    targets = TASK.targets(jnp.asarray(LABELS))
    np.testing.assert_array_equal(targets.larger(), LABELS)
    np.testing.assert_allclose(
        TASK.loss(jnp.asarray(LOGITS), targets), cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS)), rtol=1e-6
    )


def test_figures_agree_with_scikit_learn():
    figures = figures_of(LOGITS, LABELS)
    assert figures["top1"] == top_k_accuracy_score(LABELS, LOGITS, k=1)
    assert figures["top5"] == top_k_accuracy_score(LABELS, LOGITS, k=5)
    probabilities = np.exp(log_softmax(LOGITS))
    assert figures["loss"] == pytest.approx(log_loss(LABELS, probabilities, labels=range(10)), rel=1e-6)
    assert figures["examples"] == 50
    assert set(figures) == {*TASK.metrics, "examples"} and next(iter(TASK.metrics)) == "top1"


def test_masked_examples_count_nowhere():
    mask = np.arange(50) % 3 == 0
    some = figures_of(LOGITS, LABELS, mask)
    assert some == pytest.approx(figures_of(LOGITS[mask], LABELS[mask]), rel=1e-6)
    assert some["examples"] == 17


def test_a_masked_example_without_finite_logits_does_no_harm():
    logits = LOGITS.copy()
    logits[0] = np.nan
    assert np.isfinite(figures_of(logits, LABELS, np.arange(50) > 0)["loss"])


def test_ties_go_to_the_lower_class_and_nan_is_never_right():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0], [0.0, jnp.nan, 0.0]])
    np.testing.assert_array_equal(label_rank(logits, jnp.array([0, 1, 0, 0])), [0, 1, 3, 3])


def test_sums_of_batches_add_up():
    halves = [
        TASK.sums(jnp.asarray(LOGITS[rows]), jnp.asarray(LABELS[rows]), jnp.ones(25, bool))
        for rows in (slice(0, 25), slice(25, 50))
    ]
    stacked = ClassificationSums(
        *(np.stack([getattr(half, name) for half in halves]) for name in ("loss", "top1", "top5", "count"))
    )
    assert TASK.summarize(stacked) == pytest.approx(figures_of(LOGITS, LABELS), rel=1e-6)
