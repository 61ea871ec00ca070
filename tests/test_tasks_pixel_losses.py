"""The losses of pixels: hand-worked cases, definitions in float64, and segmentation_models_pytorch's answers."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.data.dataset import IGNORED
from convnext_jax.tasks.pixel_losses import dice_loss, focal_loss, lovasz_loss, pixel_cross_entropy

CLASSES = 3
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(4, 5, 6, CLASSES))).astype(np.float32)
MASKS = RNG.integers(0, CLASSES, (4, 5, 6)).astype(np.uint8)
MASKS[1][MASKS[1] == 2] = 0  # an image without the last class
MASKS[2, :3] = IGNORED
MASKS[3] = IGNORED
LOSSES: dict[str, Any] = {
    "cross_entropy": pixel_cross_entropy,
    "smoothed": lambda logits, masks: pixel_cross_entropy(logits, masks, 0.2),
    "focal": focal_loss,
    "dice": dice_loss,
    "dice_over_batch": lambda logits, masks: dice_loss(logits, masks, over_batch=True),
    "lovasz": lovasz_loss,
}


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64))
    return shares / shares.sum(-1, keepdims=True)


def pixels_of(image: int) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities [P,K] and the classes [P] of an image's valid pixels."""
    valid = MASKS[image] != IGNORED
    return softmax(LOGITS[image])[valid], MASKS[image][valid]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy(smoothing: float):
    losses = pixel_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(MASKS), smoothing)
    for image in range(3):
        shares, classes = pixels_of(image)
        targets = (1 - smoothing) * np.eye(CLASSES)[classes] + smoothing / CLASSES
        assert losses[image] == pytest.approx(-(targets * np.log(shares)).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal(gamma: float):
    losses = focal_loss(jnp.asarray(LOGITS), jnp.asarray(MASKS), gamma)
    for image in range(3):
        shares, classes = pixels_of(image)
        own = shares[np.arange(len(classes)), classes]
        assert losses[image] == pytest.approx((-((1 - own) ** gamma) * np.log(own)).mean(), rel=1e-5)


def dice_by_hand(shares: np.ndarray, classes: np.ndarray, smoothing: float, first: int) -> float:
    values = []
    for number in range(first, CLASSES):
        truth = classes == number
        if truth.any():
            above = 2 * shares[truth, number].sum() + smoothing
            values.append(1 - above / (shares[:, number].sum() + truth.sum() + smoothing))
    return float(np.mean(values))


@pytest.mark.parametrize(("smoothing", "background"), [(1.0, True), (0.1, True), (1.0, False)])
def test_dice_of_each_image(smoothing: float, background: bool):
    losses = dice_loss(jnp.asarray(LOGITS), jnp.asarray(MASKS), smoothing=smoothing, background=background)
    for image in range(3):
        expected = dice_by_hand(*pixels_of(image), smoothing, 1 - background)
        assert losses[image] == pytest.approx(expected, rel=1e-5)


def test_dice_of_a_batch():
    shares, classes = (np.concatenate(parts) for parts in zip(*map(pixels_of, range(4)), strict=True))
    losses = dice_loss(jnp.asarray(LOGITS), jnp.asarray(MASKS), over_batch=True)
    np.testing.assert_allclose(losses, [dice_by_hand(shares, classes, 1.0, 0)] * 4, rtol=1e-5)


def test_dice_worked_by_hand():
    # Two pixels of class 1, one surely found and one surely missed, and one of class 0 that is surely found:
    # class 0: 2 * 1 / (2 + 1), class 1: 2 * 1 / (1 + 2).
    logits = jnp.array([[[[9e3, 0.0], [0.0, 9e3], [9e3, 0.0]]]])
    loss = dice_loss(logits, jnp.array([[[0, 1, 1]]]), smoothing=1e-9)
    np.testing.assert_allclose(loss, [1 - 2 / 3], rtol=1e-6)


def set_loss(wrong: frozenset[int], truth: frozenset[int]) -> float:
    """1 - IoU of what is predicted if the pixels of a set are wrong."""
    predicted = truth ^ wrong
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


def test_lovasz_is_the_extension_of_one_minus_iou():
    losses = lovasz_loss(jnp.asarray(LOGITS), jnp.asarray(MASKS))
    for image in range(3):
        shares, classes = pixels_of(image)
        of_classes = []
        for number in np.unique(classes):
            errors = np.abs((classes == number) - shares[:, number])
            truth = frozenset(np.flatnonzero(classes == number).tolist())
            order = np.argsort(-errors)
            sets = [frozenset(order[:count].tolist()) for count in range(len(order) + 1)]
            growth = [set_loss(after, truth) - set_loss(before, truth) for before, after in itertools.pairwise(sets)]
            of_classes.append(np.dot(errors[order], growth))
        assert losses[image] == pytest.approx(np.mean(of_classes), rel=1e-5)


def test_of_predictions_without_doubt_lovasz_is_one_minus_iou():
    taken = RNG.integers(0, CLASSES, MASKS.shape)
    losses = lovasz_loss(jnp.asarray(9e3 * np.eye(CLASSES, dtype=np.float32)[taken]), jnp.asarray(MASKS))
    for image in range(3):
        valid = MASKS[image] != IGNORED
        truth, own = MASKS[image][valid], taken[image][valid]
        expected = [1 - ((truth == k) & (own == k)).sum() / ((truth == k) | (own == k)).sum() for k in np.unique(truth)]
        assert losses[image] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing_and_have_no_gradient(name: str):
    def loss(logits: jax.Array) -> jax.Array:
        return LOSSES[name](logits, jnp.asarray(MASKS))

    ignored = (MASKS == IGNORED)[..., None]
    others = jnp.asarray(np.where(ignored, 50 * RNG.normal(size=LOGITS.shape), LOGITS).astype(np.float32))
    np.testing.assert_allclose(loss(others), loss(jnp.asarray(LOGITS)), rtol=1e-5)
    gradient = jax.grad(lambda logits: loss(logits).sum())(jnp.asarray(LOGITS))
    assert np.isfinite(gradient).all()
    assert not np.any(np.where(ignored, gradient, 0.0))
    assert np.any(gradient[0])


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dice_over_batch"])
def test_an_image_without_classes_has_no_loss(name: str):
    assert LOSSES[name](jnp.asarray(LOGITS), jnp.asarray(MASKS))[3] == 0


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_slopes(name: str):
    direction = RNG.normal(size=LOGITS.shape).astype(np.float32)

    def along(step: jax.Array) -> jax.Array:
        return LOSSES[name](jnp.asarray(LOGITS) + step * direction, jnp.asarray(MASKS)).sum()

    size = 1e-3
    slope = (along(jnp.float32(size)) - along(jnp.float32(-size))) / (2 * size)
    assert jax.grad(along)(jnp.float32(0.0)) == pytest.approx(float(slope), rel=0.02, abs=0.01)


def test_a_pixel_that_is_surely_right_costs_nothing_and_has_a_slope():
    logits, masks = jnp.array([[[[1e4, 0.0]]]]), jnp.array([[[0]]])
    for loss in (pixel_cross_entropy, focal_loss, dice_loss, lovasz_loss):
        value, slope = jax.value_and_grad(lambda logits, loss=loss: loss(logits, masks).sum())(logits)
        assert abs(value) < 1e-6 and np.isfinite(slope).all() and not math.isnan(value)
