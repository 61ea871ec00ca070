"""Operations that change colours and leave pixels where they are, with Pillow's arithmetic."""

import jax
import jax.numpy as jnp

LEVELS = 256


def grayscale(images: jax.Array) -> jax.Array:
    """Luma of uint8 [B, H, W, 3] as Pillow's ``convert("L")`` rounds it (ITU-R 601): int32 [B, H, W, 1]."""
    red, green, blue = (images[..., index : index + 1].astype(jnp.int32) for index in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def smooth(images: jax.Array) -> jax.Array:
    """Pillow's ``ImageFilter.SMOOTH`` of uint8 [B, H, W, C], as int32: 3x3, centre 5 of 13, the border as it is."""
    pixels = images.astype(jnp.int32)
    # The sum over 3x3 is that over three rows of that over three columns.
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    inner = (2 * total + 13) // 26  # rounded; 13 is odd, so there is no tie
    return pixels.at[:, 1:-1, 1:-1].set(inner)


def blend(degenerate: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """``degenerate + factor (images - degenerate)`` within [0, 255] and truncated, as Pillow's ``Image.blend``.

    Args:
      degenerate: int32, broadcastable to [B, H, W, C]; the result where the factor is 0.
      images: uint8 [B, H, W, C]; the result where the factor is 1.
      factor: float32 [B], from 0; above 1 extrapolates.

    Returns:
      uint8 [B, H, W, C].
    """
    difference = (images.astype(jnp.int32) - degenerate).astype(jnp.float32)
    blended = degenerate.astype(jnp.float32) + factor[:, None, None, None] * difference
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)


def mean_gray(images: jax.Array) -> jax.Array:
    """The rounded mean luma of each of uint8 [B, H, W, 3], which contrast fades to: int32 [B, 1, 1, 1]."""
    gray = grayscale(images)
    count = gray.shape[1] * gray.shape[2]
    total = gray.sum((1, 2, 3), keepdims=True)
    return (2 * total + count) // (2 * count)


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps the highest ``bits``, int32 [B] in [0, 8], of uint8 [B, H, W, C]."""
    mask = (0xFF << (8 - bits)) & 0xFF
    return images & mask.astype(jnp.uint8)[:, None, None, None]


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts what is not below the threshold, float32 [B], of uint8 [B, H, W, C]."""
    return jnp.where(images < threshold[:, None, None, None], images, 255 - images)


def solarize_add(images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds int32 [B] in [0, 255] to what is below 128 of uint8 [B, H, W, C], at most up to 255."""
    brighter = jnp.minimum(images.astype(jnp.int32) + amount[:, None, None, None], 255).astype(jnp.uint8)
    return jnp.where(images < 128, brighter, images)


def auto_contrast(images: jax.Array) -> jax.Array:
    """Stretches each channel of each of uint8 [B, H, W, C] to the whole range; a flat one stays."""
    low = images.min((1, 2), keepdims=True).astype(jnp.int32)
    span = images.max((1, 2), keepdims=True).astype(jnp.int32) - low
    stretched = (images.astype(jnp.int32) - low) * 255 // jnp.maximum(span, 1)
    return jnp.where(span > 0, stretched, images.astype(jnp.int32)).astype(jnp.uint8)


def equalize(images: jax.Array) -> jax.Array:
    """Makes the histogram of each channel of each of uint8 [B, H, W, C] flat, as Pillow's ``ImageOps.equalize``."""
    batch, height, width, channels = images.shape
    values = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height * width).astype(jnp.int32)
    histogram = jax.vmap(lambda row: jnp.zeros(LEVELS, jnp.int32).at[row].add(1, mode="promise_in_bounds"))(values)
    below = jnp.cumsum(histogram, -1) - histogram  # [BC, 256]
    highest = jnp.take_along_axis(histogram, values.max(-1, keepdims=True), axis=-1)  # [BC, 1]
    step = (height * width - highest) // 255
    table = jnp.where(
        step > 0, jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255), jnp.arange(LEVELS, dtype=jnp.int32)
    )
    result = jnp.take_along_axis(table.astype(jnp.uint8), values, axis=-1, mode="promise_in_bounds")
    return jnp.moveaxis(result.reshape(batch, channels, height, width), 1, -1)


def color_jitter(key: jax.Array, images: jax.Array, strength: float) -> jax.Array:
    """Changes brightness, contrast and saturation of each image, each by its own factor, in its own order.

    Args:
      key: a PRNG key.
      images: uint8 [B, H, W, 3].
      strength: s, in (0, 1]; factors are uniform in [1 - s, 1 + s].

    Returns:
      uint8 [B, H, W, 3].

    Reference:
      torchvision's ``ColorJitter``, without its change of hue.
    """
    factor, place = jax.random.uniform(key, (2, 3, images.shape[0]))
    return enhance(images, jnp.argsort(place, axis=0), 1 + strength * (2 * factor - 1))


def enhance(images: jax.Array, order: jax.Array, factors: jax.Array) -> jax.Array:
    """Changes brightness, contrast and saturation in an order of each image's own.

    Args:
      images: uint8 [B, H, W, 3].
      order: int [3, B], what comes first, second and third: 0 brightness, 1 contrast, 2 saturation.
      factors: float32 [3, B], in the same order; 1 changes nothing.

    Returns:
      uint8 [B, H, W, 3].
    """
    for which, factor in zip(order, factors, strict=True):
        which = which[:, None, None, None]
        degenerate = jnp.where(which == 0, 0, jnp.where(which == 1, mean_gray(images), grayscale(images)))
        images = blend(degenerate, images, factor)
    return images
