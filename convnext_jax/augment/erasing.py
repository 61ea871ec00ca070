"""Random erasing: a rectangle of each image is covered."""

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

    Args:
      key: a PRNG key.
      images: float32 [B, H, W, C], normalised, so that 0 is the mean colour.
      probability: that an image is touched, independently; one in which ten rectangles in a row do not fit is not.
      mode: ``constant`` covers with 0, ``pixel`` with noise from N(0, 1) in every pixel and channel.
      area: the least and the most share of the image, uniform.
      ratio: the least and the most width over height, uniform on the logarithmic scale.

    Returns:
      float32 [B, H, W, C].

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
