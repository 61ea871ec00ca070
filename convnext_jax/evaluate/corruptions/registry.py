"""The corruptions by name, as changes of a batch of images."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.evaluate.corruptions import blur, digital, jpeg, noise, weather
from convnext_jax.evaluate.corruptions.constants import SEVERITIES, truncated
from convnext_jax.evaluate.predictions import Change
from convnext_jax.keys import Stream, stream_key

Corruption = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# The order is that of the paper, and gives each its own randomness: add new ones at the end.
CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": jpeg.jpeg_compression,
}
_SMALLEST = 8  # pixels of a side: the largest disk of defocus_blur is reflected at the edges


def corrupt(name: str, severity: int, *, seed: int = 0) -> Change:
    """Returns a corruption of a batch of images. All severities of a corruption share one compiled program.

    What happens to an image depends on the seed, the corruption and the number of the image alone: not on the batch,
    the devices or the severity.

    Args:
      name: one of `CORRUPTIONS`.
      severity: 1 to 5.
      seed: of the random corruptions.

    Returns:
      A function of images, uint8 [B,H,W,C], and their numbers in the split, int32 [B], to images of the same shape.

    Raises:
      UserError: no such corruption or severity. The function raises it for images that are neither gray nor RGB, or
        smaller than 8 pixels.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"no corruption {name!r}: {nearest(name, CORRUPTIONS)}")
    check("severity", severity, severity in SEVERITIES, "1 to 5")

    def change(images: jax.Array, numbers: jax.Array) -> jax.Array:
        check_images(images.shape)
        return _corrupted(name, images, numbers, np.int32(severity - 1), np.uint32(seed))

    return change


def check_images(shape: tuple[int, ...]) -> None:
    """Raises UserError unless images of a shape, [N,H,W,C], can be corrupted."""
    height, width, channels = shape[1:]
    if channels not in (1, 3):
        raise UserError(f"the corruptions are defined for gray and RGB images, and these have {channels} channels")
    if min(height, width) < _SMALLEST:
        raise UserError(f"the corruptions need images of {_SMALLEST} pixels or more, and these have {width}x{height}")


@functools.partial(jax.jit, static_argnums=0)
def _corrupted(name: str, images: jax.Array, numbers: jax.Array, severity: jax.Array, seed: jax.Array) -> jax.Array:
    key = stream_key(seed, Stream.CORRUPTION, list(CORRUPTIONS).index(name))

    def one(image: jax.Array, number: jax.Array) -> jax.Array:
        values = CORRUPTIONS[name](jax.random.fold_in(key, number), image, severity)
        return jnp.clip(truncated(values), 0.0, 255.0).astype(jnp.uint8)

    return jax.vmap(one)(images, numbers)
