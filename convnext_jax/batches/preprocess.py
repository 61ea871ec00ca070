"""From the pixels of a data set to the input of a network."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.image import resize as resize_image  # by name: jax2onnx has another in the module, for a known batch alone


@dataclasses.dataclass(frozen=True)
class Normalization:
    """The channel means and deviations that images are normalized with, on the scale [0, 1].

    Attributes:
      mean: one for each channel.
      std: one for each channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def normalize(images: jax.Array, normalization: Normalization) -> jax.Array:
    """Returns pixels as a network takes them, ``(x / 255 - mean) / std`` by channel.

    >>> normalize(jnp.full((1, 1, 1, 1), 255, jnp.uint8), Normalization((0.5,), (0.25,))).item()
    2.0

    Args:
      images: uint8 [B,H,W,C].
      normalization: of C channels.

    Returns:
      float32 [B,H,W,C].
    """
    mean, std = (_float64(values) for values in (normalization.mean, normalization.std))
    scale = (1.0 / (255.0 * std)).astype(np.float32)
    offset = (mean / std).astype(np.float32)
    return images.astype(jnp.float32) * scale - offset


def _float64(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float64)


def resize(images: jax.Array, size: int | None) -> jax.Array:
    """Resizes images to a side of ``size`` pixels, bilinearly; leaves them alone if it is None.

    >>> resize(jnp.ones((1, 8, 8, 3)), 16).shape
    (1, 16, 16, 3)

    Args:
      images: float32 [B,H,W,C].
      size: in pixels.
    """
    if size is None or images.shape[1:3] == (size, size):
        return images
    return resize_image(images, (images.shape[0], size, size, images.shape[-1]), "linear")
