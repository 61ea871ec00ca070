"""Crops and flips: pixels move, none changes."""

import jax
import jax.numpy as jnp


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Pads by reflection, which does not repeat the border pixel, and crops each image at its own random place.

    Args:
      key: a PRNG key.
      images: [B, H, W, C].
      padding: pixels on each side, less than H and W; 0 returns the images as they are.

    Returns:
      [B, H, W, C] of the same dtype, offsets uniform over the (2 padding + 1)^2 places.
    """
    if padding == 0:
        return images
    batch, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(crop)(padded, offsets)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image [B, H, W, C] left to right with probability 1/2, independently."""
    mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1, :], images)
