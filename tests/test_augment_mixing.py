"""Mixup and CutMix: the share of a label is the share of its image."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from convnext_jax.augment.mixing import beta_quantile, mix
from convnext_jax.tasks.classification import Classification, MixedLabels, cross_entropy

# Image i is i everywhere, so that a mixed one tells its share.
COUNT = 2000
IMAGES = jnp.broadcast_to(jnp.arange(COUNT, dtype=jnp.float32)[:, None, None, None], (COUNT, 16, 24, 3))
LABELS = jnp.arange(COUNT, dtype=jnp.int32)
NEIGHBORS = np.arange(COUNT) ^ 1


def mixed(**settings: float) -> tuple[np.ndarray, MixedLabels]:
    images, targets = mix(jax.random.key(0), IMAGES, LABELS, **({"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | settings))
    np.testing.assert_array_equal(targets.labels_a, LABELS)
    np.testing.assert_array_equal(targets.labels_b, NEIGHBORS)
    return np.asarray(images), jax.tree.map(np.asarray, targets)


def own_share(images: np.ndarray) -> np.ndarray:
    """How much of each image is its own, from its mean."""
    return (images.mean((1, 2, 3)) - NEIGHBORS) / (np.arange(COUNT) - NEIGHBORS)


def test_mixup_mixes_whole_images_by_beta():
    images, targets = mixed(mixup_alpha=0.4)
    assert np.ptp(images, axis=(1, 2, 3)).max() < 1e-3
    np.testing.assert_allclose(own_share(images), targets.weight_a, atol=2e-3)
    assert stats.kstest(targets.weight_a, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_cutmix_puts_a_rectangle_of_the_neighbor_in():
    images, targets = mixed(cutmix_alpha=1.0)
    foreign = images[..., 0] == NEIGHBORS[:, None, None]
    assert (foreign | (images[..., 0] == np.arange(COUNT)[:, None, None])).all()
    np.testing.assert_allclose(1 - foreign.mean((1, 2)), targets.weight_a, atol=1e-6)
    np.testing.assert_array_equal(foreign.sum((1, 2)), foreign.any(1).sum(1) * foreign.any(2).sum(1))
    # Rectangles are cut off at the edge, so that on average more than half of the image stays.
    assert 0.5 < targets.weight_a.mean() < 0.72 and targets.weight_a.min() < 0.3


def test_each_image_is_mixed_in_its_own_way_as_often_as_stated():
    images, targets = mixed(mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.6, switch_probability=0.25)
    np.testing.assert_allclose(own_share(images), targets.weight_a, atol=2e-3)
    blended = (images % 1 != 0).any((1, 2, 3))
    alone = (images == np.arange(COUNT)[:, None, None, None]).all((1, 2, 3))
    assert abs(blended.mean() - 0.6 * 0.75) < 0.05
    # A rectangle of less than a pixel leaves the image as it is.
    assert 0.4 - 0.05 < alone.mean() < 0.4 + 0.08
    assert (targets.weight_a[alone] == 1).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_quantiles_are_those_of_the_beta_distribution(alpha: float):
    uniform = np.random.default_rng(0).random(1000).astype(np.float32)
    # Linear between 4,097 quantiles, which is coarsest at the very ends.
    expected = stats.beta(alpha, alpha).ppf(uniform)
    found = beta_quantile(jnp.asarray(uniform), alpha)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(found - expected).mean() < 1e-4


def test_the_loss_is_that_of_the_mixed_smoothed_target():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.standard_normal((6, 5)), jnp.float32)
    labels, others = (jnp.asarray(rng.integers(0, 5, 6), jnp.int32) for _ in range(2))
    share = jnp.asarray(rng.random(6), jnp.float32)
    one_hot = share[:, None] * jax.nn.one_hot(labels, 5) + (1 - share)[:, None] * jax.nn.one_hot(others, 5)
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, 0.1))
    task = Classification(5, label_smoothing=0.1)
    np.testing.assert_allclose(task.loss(logits, MixedLabels(labels, others, share)), expected, rtol=1e-5)
    # If nothing is mixed, it is exactly the loss of the label.
    np.testing.assert_array_equal(task.loss(logits, task.targets(labels)), cross_entropy(logits, labels, 0.1))


def test_the_larger_class_is_that_of_the_larger_share():
    targets = MixedLabels(jnp.array([1, 1, 1]), jnp.array([2, 2, 2]), jnp.array([0.7, 0.5, 0.2]))
    np.testing.assert_array_equal(targets.larger(), [1, 1, 2])
