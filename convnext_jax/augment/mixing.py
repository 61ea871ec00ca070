"""Mixup and CutMix, which mix each image, and its label, with its neighbor in the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.boxes import area, inside
from convnext_jax.tasks.classification import MixedLabels


def mix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float = 1.0,
    switch_probability: float = 0.5,
) -> tuple[jax.Array, MixedLabels]:
    """Mixes each image with its neighbor, by mixup or by CutMix.

    The pairs are images 0 and 1, 2 and 3, and so on. The order of a batch is random anyway, and if each device has an
    even number of images, both images of a pair are on the same device, so that no images are sent between devices.

    >>> images, labels = jnp.ones((2, 8, 8, 3)), jnp.array([4, 7])
    >>> mixed, targets = mix(jax.random.key(0), images, labels, mixup_alpha=0.8, cutmix_alpha=1.0)
    >>> mixed.shape, targets.labels_a.tolist(), targets.labels_b.tolist()
    ((2, 8, 8, 3), [4, 7], [7, 4])

    Args:
      key: a PRNG key.
      images: float32 [B,H,W,C]. B must be even.
      labels: int32 [B].
      mixup_alpha: the share in mixup is drawn from Beta(alpha, alpha); 0 turns mixup off.
      cutmix_alpha: the same for CutMix.
      probability: probability that an image is mixed at all, independently of the others.
      switch_probability: probability of CutMix if both are on.

    Returns:
      The images, float32 [B,H,W,C], and their targets.

    Reference:
      Zhang et al., `mixup <https://arxiv.org/abs/1710.09412>`_, 2018; Yun et al., `CutMix
      <https://arxiv.org/abs/1905.04899>`_, 2019.
    """
    batch, height, width, _ = images.shape
    share, acts, switch, *center = jax.random.uniform(key, (5, batch))
    neighbors = _swap_pairs(images)
    acts = acts < probability
    cuts = switch < _switch(mixup_alpha, cutmix_alpha, switch_probability)
    if cutmix_alpha > 0:
        box = cutmix_box(center[0], center[1], beta_quantile(share, cutmix_alpha), height, width)
        box *= (acts & cuts)[:, None]  # all zeros: an empty rectangle
        shares = 1 - area(box).astype(jnp.float32) / (height * width)
        images = jnp.where(inside(box, height, width)[..., None], neighbors, images)
    else:
        shares = jnp.ones((batch,), jnp.float32)
    if mixup_alpha > 0:
        mixed = jnp.where(acts & ~cuts, beta_quantile(share, mixup_alpha), 1.0)
        weight = mixed[:, None, None, None]
        images = weight * images + (1 - weight) * neighbors
        shares *= mixed
    return images, MixedLabels(labels, _swap_pairs(labels), shares)


def _switch(mixup_alpha: float, cutmix_alpha: float, switch_probability: float) -> float:
    """Returns the probability of CutMix for an image that is mixed."""
    if mixup_alpha > 0 and cutmix_alpha > 0:
        return switch_probability
    return 1.0 if cutmix_alpha > 0 else 0.0


def _swap_pairs(array: jax.Array) -> jax.Array:
    """Returns an array [B,...] with rows 0 and 1, 2 and 3, and so on swapped."""
    return array.reshape(-1, 2, *array.shape[1:])[:, ::-1].reshape(array.shape)


def cutmix_box(across: jax.Array, down: jax.Array, share: jax.Array, height: int, width: int) -> jax.Array:
    """Returns the rectangle of an image that its neighbor covers.

    >>> half = jnp.array([0.5])
    >>> cutmix_box(half, half, jnp.array([0.75]), 8, 16).tolist()
    [[4, 2, 12, 6]]

    Args:
      across: horizontal position of the center as a share of the width, float32 [B] in [0, 1).
      down: vertical position of the center as a share of the height, float32 [B] in [0, 1).
      share: share of the image that should stay, float32 [B]. The sides of the rectangle are ``sqrt(1 - share)`` times
        those of the image.
      height: height of the images in pixels.
      width: width of the images in pixels.

    Returns:
      Left, upper, right and lower bounds, int32 [B,4]. The rectangle is cut off at the image's edges, so that a larger
      share may stay.
    """
    side = jnp.sqrt(1 - share)
    half_width, half_height = (side * width / 2).astype(jnp.int32), (side * height / 2).astype(jnp.int32)
    x, y = (across * width).astype(jnp.int32), (down * height).astype(jnp.int32)
    left, right = jnp.clip(x - half_width, 0, width), jnp.clip(x + half_width, 0, width)
    upper, lower = jnp.clip(y - half_height, 0, height), jnp.clip(y + half_height, 0, height)
    return jnp.stack([left, upper, right, lower], -1)


def beta_quantile(uniform: jax.Array, alpha: float) -> jax.Array:
    """Turns uniform random numbers into draws from Beta(alpha, alpha).

    The usual rejection sampler runs a loop on the device for a few numbers. This function interpolates linearly in a
    table of 4,097 quantiles instead.

    >>> beta_quantile(jnp.array([0.25, 0.5]), alpha=1.0).tolist()
    [0.25, 0.5]

    Args:
      uniform: float32 in [0, 1), any shape.
      alpha: parameter of the distribution, greater than 0.

    Returns:
      float32 of the same shape, in [0, 1].
    """
    from scipy import special  # takes a third of a second to import, and only this function needs it

    quantiles = special.betaincinv(alpha, alpha, np.linspace(0, 1, 4097)).astype(np.float32)
    position = uniform * 4096
    index = position.astype(jnp.int32)
    below, above = jnp.asarray(quantiles)[index], jnp.asarray(quantiles)[index + 1]
    return below + (above - below) * (position - index)
