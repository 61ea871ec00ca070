"""The augmentation of a training batch: which families act, and in which order."""

import jax

from convnext_jax.augment.geometry import random_crop, random_flip
from convnext_jax.config import AugmentConfig
from convnext_jax.errors import UserError


def augment(config: AugmentConfig, key: jax.Array, images: jax.Array) -> jax.Array:
    """Augments a batch, each sample on its own.

    Args:
      config: what acts, and how strongly.
      key: a PRNG key; the same key gives the same result.
      images: uint8 [B, H, W, 3].

    Returns:
      uint8 [B, H, W, 3].
    """
    # A key for each family by its own number, so that adding or leaving out one does not change what the others draw.
    images = random_crop(jax.random.fold_in(key, 0), images, config.crop_padding)
    return random_flip(jax.random.fold_in(key, 1), images) if config.flip else images


def check_policy(config: AugmentConfig, height: int, width: int) -> None:
    """Raises UserError where a policy cannot act on images of this size, in pixels."""
    if config.crop_padding >= min(height, width):
        raise UserError(
            f"config.augment.crop_padding={config.crop_padding}: reflection needs less than the image's own"
            f" {height}x{width} pixels; at most {min(height, width) - 1}"
        )
