"""Test-time augmentation: the views of an image whose probabilities are averaged."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp


def as_it_is(images: jax.Array) -> jax.Array:
    """Returns one view, the image itself.

    Args:
      images: [B,H,W,C].

    Returns:
      [1,B,H,W,C].
    """
    return images[None]


def flipped(images: jax.Array) -> jax.Array:
    """Returns two views, the image and its mirror image.

    >>> flipped(jnp.arange(3.0).reshape(1, 1, 3, 1)).ravel().tolist()
    [0.0, 1.0, 2.0, 2.0, 1.0, 0.0]

    Args:
      images: [B,H,W,C].

    Returns:
      [2,B,H,W,C].
    """
    return jnp.stack([images, images[:, :, ::-1]])


def shifted(images: jax.Array) -> jax.Array:
    """Returns ten views: the image and its shifts to the four corners by a sixteenth of its side, each also mirrored.

    What comes in at an edge repeats the edge.

    Args:
      images: [B,H,W,C].

    Returns:
      [10,B,H,W,C].
    """
    height, width = images.shape[1:3]
    down, right = max(1, height // 16), max(1, width // 16)
    padded = jnp.pad(images, ((0, 0), (down, down), (right, right), (0, 0)), mode="edge")
    corners = [(down, right), *((y, x) for y in (0, 2 * down) for x in (0, 2 * right))]
    views = jnp.stack([padded[:, y : y + height, x : x + width] for y, x in corners])
    return jnp.concatenate([views, views[:, :, :, ::-1]])


# By the name that --tta gives.
VIEWS: Mapping[str, Callable[[jax.Array], jax.Array]] = {"none": as_it_is, "flip": flipped, "shifts": shifted}
