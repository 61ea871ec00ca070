"""Mixup and CutMix: each image is mixed with its neighbour in the batch, and so are their labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.boxes import area, inside


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Targets:
    """What a batch of images shows: a share of one class, the rest of another.

    Attributes:
      labels: the class of each image, int32 [B].
      others: the class that is mixed in, int32 [B].
      share: of ``labels``, float32 [B] in [0, 1].
    """

    labels: jax.Array
    others: jax.Array
    share: jax.Array

    @classmethod
    def of(cls, labels: jax.Array) -> "Targets":
        """The targets of images that are not mixed."""
        return cls(labels, labels, jnp.ones(labels.shape, jnp.float32))

    def main(self) -> jax.Array:
        """The class that has the larger share of each image, int32 [B]."""
        return jnp.where(self.share >= 0.5, self.labels, self.others)


def mix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float = 1.0,
    switch_probability: float = 0.5,
) -> tuple[jax.Array, Targets]:
    """Mixes each image with its neighbour, by mixup or by CutMix.

    The pairs are the images 0 and 1, 2 and 3, and so on of the batch, whose order is random anyway: where each device
    has an even share, a pair lies on one, and nothing is sent between them.

    Args:
      key: a PRNG key.
      images: float32 [B, H, W, C], B even.
      labels: int32 [B].
      mixup_alpha: of the distribution Beta(alpha, alpha) of mixup's share; 0 turns mixup off.
      cutmix_alpha: the same of CutMix.
      probability: that an image is mixed at all, independently.
      switch_probability: that CutMix is taken where both are on.

    Returns:
      The images, float32 [B, H, W, C], and their targets.

    Reference:
      Zhang et al., `mixup <https://arxiv.org/abs/1710.09412>`_, 2018; Yun et al., `CutMix
      <https://arxiv.org/abs/1905.04899>`_, 2019.
    """
    batch, height, width, _ = images.shape
    share, acts, switch, *place = jax.random.uniform(key, (5, batch))
    neighbours = _swap_pairs(images)
    acts = acts < probability
    cuts = switch < _switch(mixup_alpha, cutmix_alpha, switch_probability)
    if cutmix_alpha > 0:
        box = cutmix_box(place[0], place[1], beta_quantile(share, cutmix_alpha), height, width)
        box *= (acts & cuts)[:, None]  # an empty one
        shares = 1 - area(box).astype(jnp.float32) / (height * width)
        images = jnp.where(inside(box, height, width)[..., None], neighbours, images)
    else:
        shares = jnp.ones((batch,), jnp.float32)
    if mixup_alpha > 0:
        mixed = jnp.where(acts & ~cuts, beta_quantile(share, mixup_alpha), 1.0)
        weight = mixed[:, None, None, None]
        images = weight * images + (1 - weight) * neighbours
        shares *= mixed
    return images, Targets(labels, _swap_pairs(labels), shares)


def _switch(mixup_alpha: float, cutmix_alpha: float, switch_probability: float) -> float:
    if mixup_alpha > 0 and cutmix_alpha > 0:
        return switch_probability
    return 1.0 if cutmix_alpha > 0 else 0.0


def _swap_pairs(array: jax.Array) -> jax.Array:
    """The array [B, ...] with rows 0 and 1, 2 and 3, and so on exchanged."""
    return array.reshape(-1, 2, *array.shape[1:])[:, ::-1].reshape(array.shape)


def cutmix_box(across: jax.Array, down: jax.Array, share: jax.Array, height: int, width: int) -> jax.Array:
    """The rectangle that the neighbour covers.

    Args:
      across: of its centre, float32 [B] in [0, 1), as a share of the width.
      down: the same, as a share of the height.
      share: of the image that shall stay, float32 [B]; the rectangle's sides are ``sqrt(1 - share)`` of the image's.
      height: of the image.
      width: of the image.

    Returns:
      int32 [B, 4]: left, upper, right and lower bounds, cut off at the image's edge, so that more may stay.
    """
    side = jnp.sqrt(1 - share)
    half_width, half_height = (side * width / 2).astype(jnp.int32), (side * height / 2).astype(jnp.int32)
    x, y = (across * width).astype(jnp.int32), (down * height).astype(jnp.int32)
    left, right = jnp.clip(x - half_width, 0, width), jnp.clip(x + half_width, 0, width)
    upper, lower = jnp.clip(y - half_height, 0, height), jnp.clip(y + half_height, 0, height)
    return jnp.stack([left, upper, right, lower], -1)


def beta_quantile(uniform: jax.Array, alpha: float) -> jax.Array:
    """Turns uniform numbers into draws from Beta(alpha, alpha).

    The usual way draws until it accepts, a loop on the device for a few numbers; this one looks them up in a table of
    4,097 quantiles, linear in between.

    Args:
      uniform: float32, in [0, 1).
      alpha: greater than 0.

    Returns:
      float32 of the same shape, in [0, 1].
    """
    from scipy import special  # a third of a second to import, and needed here alone

    quantiles = special.betaincinv(alpha, alpha, np.linspace(0, 1, 4097)).astype(np.float32)
    place = uniform * 4096
    index = place.astype(jnp.int32)
    below, above = jnp.asarray(quantiles)[index], jnp.asarray(quantiles)[index + 1]
    return below + (above - below) * (place - index)
