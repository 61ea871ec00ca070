"""Random erasing, which covers a rectangle of an image."""

import jax
import jax.numpy as jnp

from convnext_jax.augment.boxes import inside, random_box


def random_erasing(
    key: jax.Array,
    images: jax.Array,
    probability: float,
    mode: str = "constant",
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> jax.Array:
    """Covers a random rectangle of each image.

    >>> erased = random_erasing(jax.random.key(0), jnp.ones((1, 8, 8, 3)), 1.0)
    >>> erased.shape, erased.min().item(), erased.max().item()
    ((1, 8, 8, 3), 0.0, 1.0)

    Args:
      key: a PRNG key.
      images: float32 [B,H,W,C], normalized, so that 0 is the mean color.
      probability: probability that an image is changed, independently of the others. An image also stays as it is if
        ten random rectangles in a row do not fit.
      mode: ``constant`` covers the rectangle with 0, ``pixel`` with noise from N(0, 1) for each pixel and channel.
      area: smallest and largest share of the image's area. The share is drawn uniformly.
      ratio: smallest and largest ratio of width to height. The ratio is drawn uniformly on a logarithmic scale.

    Returns:
      float32 [B,H,W,C].

    Reference:
      Zhong et al., `Random Erasing Data Augmentation <https://arxiv.org/abs/1708.04896>`_, 2020.
    """
    batch, height, width, _ = images.shape
    box_key, acts_key, noise_key = jax.random.split(key, 3)
    box, fits = random_box(box_key, batch, height, width, area, ratio)
    acts = fits & jax.random.bernoulli(acts_key, probability, (batch,))
    covered = inside(box, height, width) & acts[:, None, None]
    cover = jax.random.normal(noise_key, images.shape) if mode == "pixel" else jnp.float32(0)
    return jnp.where(covered[..., None], cover, images)
