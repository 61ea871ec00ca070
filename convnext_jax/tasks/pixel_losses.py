"""Losses of segmentation: one number for each image, from the logits and the classes of its pixels.

Pixels whose class is `IGNORED` count in none of them.
"""

import jax
import jax.numpy as jnp

from convnext_jax.data.dataset import IGNORED


def valid_pixels(masks: jax.Array) -> jax.Array:
    """Returns which pixels count, bool of the shape of the masks."""
    return masks != IGNORED


def _classes(masks: jax.Array) -> jax.Array:
    """Returns int32 classes with 0 where they are ignored, to index with."""
    return jnp.where(valid_pixels(masks), masks, 0).astype(jnp.int32)


def _mean_over_pixels(values: jax.Array, masks: jax.Array) -> jax.Array:
    """Returns the mean over the valid pixels of each image, 0 if there are none, float32 [B]."""
    valid = valid_pixels(masks)
    return jnp.where(valid, values, 0.0).sum((1, 2)) / jnp.maximum(valid.sum((1, 2)), 1)


def pixel_cross_entropies(logits: jax.Array, masks: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the cross-entropy of each pixel against smoothed labels, 0 where it is ignored, float32 [B,H,W], in nats.

    ``-sum_k t_k log softmax(z)_k`` with ``t = (1 - a) onehot + a / K``.

    Args:
      logits: float32 [B,H,W,K].
      masks: the class of each pixel, [B,H,W].
      smoothing: a, in [0, 1).
    """
    # A choice among all classes, and not a look-up, whose gradient is a scatter, which is slow on a CPU.
    is_own = jnp.arange(logits.shape[-1]) == _classes(masks)[..., None]
    own = jnp.where(is_own, logits, 0.0).sum(-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - (1.0 - smoothing) * own
    if smoothing:
        losses -= smoothing * logits.mean(-1)
    return jnp.where(valid_pixels(masks), losses, 0.0)


def pixel_cross_entropy(logits: jax.Array, masks: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the mean cross-entropy of the pixels of each image, float32 [B]; see `pixel_cross_entropies`.

    >>> round(pixel_cross_entropy(jnp.zeros((1, 1, 2, 4)), jnp.array([[[2, IGNORED]]])).item(), 4)
    1.3863
    """
    return _mean_over_pixels(pixel_cross_entropies(logits, masks, smoothing), masks)


def focal_loss(logits: jax.Array, masks: jax.Array, gamma: float = 2.0) -> jax.Array:
    """Returns the mean focal loss of the pixels of each image, float32 [B].

    ``-(1 - p)^gamma log p`` with p the probability of a pixel's own class. With gamma 0 it is the cross-entropy.

    Args:
      logits: float32 [B,H,W,K].
      masks: the class of each pixel, [B,H,W].
      gamma: how much less a pixel counts that is right already; 0 or more.

    Reference:
      Lin et al., `Focal Loss for Dense Object Detection <https://arxiv.org/abs/1708.02002>`_, 2017.
    """
    cross_entropies = pixel_cross_entropies(logits, masks)
    # 1 - p without cancellation, and never exactly 0, where a power below 1 has no slope.
    wrong = jnp.maximum(-jnp.expm1(-cross_entropies), 1e-12)
    return _mean_over_pixels(wrong**gamma * cross_entropies, masks)


def dice_loss(
    logits: jax.Array, masks: jax.Array, *, smoothing: float = 1.0, over_batch: bool = False, background: bool = True
) -> jax.Array:
    """Returns 1 minus the soft Dice coefficient, in the mean over classes, float32 [B].

    Of class k it is ``(2 sum p_k t_k + s) / (sum p_k + sum t_k + s)`` over the valid pixels, with p the probabilities,
    t 1 where a pixel is of the class and 0 elsewhere, and s the smoothing. Classes that no pixel is of are left out of
    the mean. An image, or a batch, without any class has the loss 0.

    Args:
      logits: float32 [B,H,W,K].
      masks: the class of each pixel, [B,H,W].
      smoothing: s, greater than 0.
      over_batch: whether the sums are over the pixels of the whole batch. Each image has the loss of the batch then.
      background: whether class 0 counts. Without it and with two classes this is the binary Dice loss.

    Reference:
      Milletari et al., `V-Net <https://arxiv.org/abs/1606.04797>`_, 2016, with the sums of probabilities and not of
      their squares in the denominator, as segmentation_models_pytorch has it.
    """
    classes = logits.shape[-1]
    valid = valid_pixels(masks)[..., None]
    shares = jnp.where(valid, jax.nn.softmax(logits), 0.0)
    targets = jnp.where(valid, jax.nn.one_hot(_classes(masks), classes), 0.0)
    axes = (0, 1, 2) if over_batch else (1, 2)
    # [B,K], or [K] over the batch.
    overlap, taken, there = (x.sum(axes) for x in (shares * targets, shares, targets))
    losses = 1.0 - (2.0 * overlap + smoothing) / (taken + there + smoothing)
    counted = (there > 0) & (background | (jnp.arange(classes) > 0))
    loss = jnp.where(counted, losses, 0.0).sum(-1) / jnp.maximum(counted.sum(-1), 1)
    return jnp.broadcast_to(loss, logits.shape[:1])


def lovasz_loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Returns the Lovasz-softmax loss of each image, in the mean over the classes that are in it, float32 [B].

    The errors ``|t_k - p_k|`` of a class's pixels, from the largest on, times the growth of ``1 - IoU`` as each pixel
    joins those that are wrong. It is the convex surrogate of ``1 - IoU``.

    Args:
      logits: float32 [B,H,W,K].
      masks: the class of each pixel, [B,H,W].

    Reference:
      Berman et al., `The Lovasz-Softmax loss <https://arxiv.org/abs/1705.08790>`_, 2018, of each image.
    """
    classes = logits.shape[-1]

    def of_image(logits: jax.Array, mask: jax.Array) -> jax.Array:
        valid = valid_pixels(mask).ravel()
        shares = jax.nn.softmax(logits).reshape(-1, classes)
        own = _classes(mask).ravel()

        def of_class(number: jax.Array) -> tuple[jax.Array, jax.Array]:
            truth = valid & (own == number)
            errors = jnp.where(valid, jnp.abs(truth - shares[:, number]), 0.0)
            # Ignored pixels come last, with an error of 0.
            order = jnp.argsort(jnp.where(valid, -jax.lax.stop_gradient(errors), jnp.inf))
            # The growths go to their pixels, and not the errors to their ranks: the gradient of that is a scatter.
            return jnp.dot(errors, _jaccard_growth(truth[order])[jnp.argsort(order)]), truth.any()

        losses, present = jax.vmap(of_class)(jnp.arange(classes))
        return jnp.where(present, losses, 0.0).sum() / jnp.maximum(present.sum(), 1)

    return jax.vmap(of_image)(logits, masks)


def _jaccard_growth(truth: jax.Array) -> jax.Array:
    """Returns by how much ``1 - IoU`` grows as each pixel, in this order, becomes wrong, float32 [P].

    Args:
      truth: whether each pixel is of the class, bool [P].
    """
    total = truth.sum()
    missed = jnp.cumsum(truth)  # of the class, and wrong by now
    taken = jnp.cumsum(~truth)  # of others, and taken for the class by now
    loss = 1.0 - (total - missed) / jnp.maximum(total + taken, 1)
    return jnp.diff(loss, prepend=0.0)
