"""Loss and metrics against float64 and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from convnext_jax.tasks.losses import cross_entropy
from sklearn.metrics import log_loss, top_k_accuracy_score

from convnext_jax.tasks.classification import ClassificationSums, classification_sums, label_rank

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(50, 10)).astype(np.float32) * 4
LABELS = RNG.integers(0, 10, 50).astype(np.int32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_that_against_smoothed_targets(smoothing: float):
    targets = (1 - smoothing) * np.eye(10)[LABELS] + smoothing / 10
    expected = -(targets * log_softmax(LOGITS)).sum(-1)
    np.testing.assert_allclose(cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing), expected, rtol=1e-5)


def test_sums_agree_with_scikit_learn():
    figures = classification_sums(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.ones(50, bool)).total()
    probabilities = np.exp(log_softmax(LOGITS))
    assert figures["top1"] == top_k_accuracy_score(LABELS, LOGITS, k=1)
    assert figures["top5"] == top_k_accuracy_score(LABELS, LOGITS, k=5)
    assert figures["loss"] == pytest.approx(log_loss(LABELS, probabilities, labels=range(10)), rel=1e-6)
    assert figures["examples"] == 50


def test_masked_examples_count_nowhere():
    mask = np.arange(50) % 3 == 0
    some = classification_sums(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask)).total()
    alone = classification_sums(jnp.asarray(LOGITS[mask]), jnp.asarray(LABELS[mask]), jnp.ones(17, bool)).total()
    assert some == pytest.approx(alone, rel=1e-6)
    assert some["examples"] == 17


def test_a_masked_example_without_finite_logits_does_no_harm():
    logits = jnp.asarray(LOGITS).at[0].set(jnp.nan)
    figures = classification_sums(logits, jnp.asarray(LABELS), jnp.arange(50) > 0).total()
    assert np.isfinite(figures["loss"])


def test_ties_go_to_the_lower_class_and_nan_is_never_right():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [jnp.nan, 0.0, 0.0], [0.0, jnp.nan, 0.0]])
    np.testing.assert_array_equal(label_rank(logits, jnp.array([0, 1, 0, 0])), [0, 1, 3, 3])


def test_sums_of_batches_add_up():
    halves = [
        classification_sums(jnp.asarray(LOGITS[rows]), jnp.asarray(LABELS[rows]), jnp.ones(25, bool))
        for rows in (slice(0, 25), slice(25, 50))
    ]
    stacked = ClassificationSums(
        *(np.stack([getattr(h, f) for h in halves]) for f in ("loss", "top1", "top5", "count"))
    )
    whole = classification_sums(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.ones(50, bool))
    assert stacked.total() == pytest.approx(whole.total(), rel=1e-6)
