"""Operations that change colors and do not move pixels, with Pillow's arithmetic."""

import jax
import jax.numpy as jnp

LEVELS = 256


def grayscale(images: jax.Array) -> jax.Array:
    """Returns the luma of images (ITU-R 601), rounded like Pillow's ``convert("L")``.

    >>> grayscale(jnp.array([[[[255, 0, 0]]]], jnp.uint8)).item()
    76

    Args:
      images: uint8 [B,H,W,C]. If C is 3 or 4, the first three channels are red, green and blue. If C is 1 or 2, the
        first channel is the luma itself.

    Returns:
      int32 [B,H,W,1].
    """
    if images.shape[-1] < 3:
        return images[..., :1].astype(jnp.int32)
    red, green, blue = (images[..., index : index + 1].astype(jnp.int32) for index in range(3))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def keep_alpha(images: jax.Array, changed: jax.Array) -> jax.Array:
    """Returns the changed colors with the alpha channel of the original images, if they have one.

    >>> keep_alpha(jnp.array([[[[10, 255]]]], jnp.uint8), jnp.array([[[[90, 80]]]], jnp.uint8)).tolist()
    [[[[90, 255]]]]

    Args:
      images: uint8 [B,H,W,C]. The last channel is alpha if C is 2 or 4.
      changed: uint8 [B,H,W,C].

    Returns:
      uint8 [B,H,W,C].
    """
    if images.shape[-1] in (1, 3):
        return changed
    return jnp.concatenate([changed[..., :-1], images[..., -1:]], -1)


def smooth(images: jax.Array) -> jax.Array:
    """Smooths images like Pillow's ``ImageFilter.SMOOTH``.

    Each pixel becomes a weighted mean of its 3x3 neighborhood: the center has weight 5/13, each neighbor 1/13. Pixels
    on the border stay as they are.

    >>> image = jnp.zeros((1, 3, 3, 1), jnp.uint8).at[0, 1, 1].set(130)
    >>> smooth(image)[0, :, :, 0].tolist()
    [[0, 0, 0], [0, 50, 0], [0, 0, 0]]

    Args:
      images: uint8 [B,H,W,C].

    Returns:
      int32 [B,H,W,C].
    """
    pixels = images.astype(jnp.int32)
    # The sum over 3x3 pixels is separable: first over rows, then over columns.
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    inner = (2 * total + 13) // 26  # total / 13, rounded; there are no ties because 13 is odd
    return pixels.at[:, 1:-1, 1:-1].set(inner)


def blend(degenerate: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends images with degenerate versions of them, like Pillow's ``Image.blend``.

    The result is ``degenerate + factor * (images - degenerate)``, clipped to [0, 255] and truncated.

    >>> blend(jnp.int32(0), jnp.full((1, 1, 1, 3), 100, jnp.uint8), jnp.array([1.5])).tolist()
    [[[[150, 150, 150]]]]

    Args:
      degenerate: int32, broadcastable to [B,H,W,C]. This is the result for a factor of 0.
      images: uint8 [B,H,W,C]. This is the result for a factor of 1.
      factor: float32 [B], 0 or more. Factors above 1 extrapolate.

    Returns:
      uint8 [B,H,W,C].
    """
    difference = (images.astype(jnp.int32) - degenerate).astype(jnp.float32)
    blended = degenerate.astype(jnp.float32) + factor[:, None, None, None] * difference
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)


def mean_gray(images: jax.Array) -> jax.Array:
    """Returns the mean luma of each image, rounded. A contrast of 0 turns all pixels into it.

    >>> mean_gray(jnp.array([10, 20, 31], jnp.uint8).reshape(1, 1, 3, 1)).item()
    20

    Args:
      images: uint8 [B,H,W,C].

    Returns:
      int32 [B,1,1,1].
    """
    gray = grayscale(images)
    count = gray.shape[1] * gray.shape[2]
    total = gray.sum((1, 2, 3), keepdims=True)
    return (2 * total + count) // (2 * count)


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """Keeps only the highest bits of each value.

    >>> posterize(jnp.full((1, 1, 1, 1), 255, jnp.uint8), jnp.array([3])).item()
    224

    Args:
      images: uint8 [B,H,W,C].
      bits: number of bits to keep, int32 [B] in [0, 8].

    Returns:
      uint8 [B,H,W,C].
    """
    mask = (0xFF << (8 - bits)) & 0xFF
    return images & mask.astype(jnp.uint8)[:, None, None, None]


def solarize(images: jax.Array, threshold: jax.Array) -> jax.Array:
    """Inverts all values that are not below a threshold.

    >>> solarize(jnp.array([127, 128], jnp.uint8).reshape(1, 1, 2, 1), jnp.array([128.0])).ravel().tolist()
    [127, 127]

    Args:
      images: uint8 [B,H,W,C].
      threshold: float32 [B].

    Returns:
      uint8 [B,H,W,C].
    """
    return jnp.where(images < threshold[:, None, None, None], images, 255 - images)


def solarize_add(images: jax.Array, amount: jax.Array) -> jax.Array:
    """Adds an amount to all values below 128. Sums above 255 become 255.

    >>> solarize_add(jnp.array([100, 128], jnp.uint8).reshape(1, 1, 2, 1), jnp.array([50])).ravel().tolist()
    [150, 128]

    Args:
      images: uint8 [B,H,W,C].
      amount: int32 [B] in [0, 255].

    Returns:
      uint8 [B,H,W,C].
    """
    brighter = jnp.minimum(images.astype(jnp.int32) + amount[:, None, None, None], 255).astype(jnp.uint8)
    return jnp.where(images < 128, brighter, images)


def auto_contrast(images: jax.Array) -> jax.Array:
    """Stretches each channel of each image to the full range from 0 to 255. A constant channel stays as it is.

    >>> auto_contrast(jnp.array([100, 110, 120], jnp.uint8).reshape(1, 1, 3, 1)).ravel().tolist()
    [0, 127, 255]

    Args:
      images: uint8 [B,H,W,C].

    Returns:
      uint8 [B,H,W,C].
    """
    low = images.min((1, 2), keepdims=True).astype(jnp.int32)
    span = images.max((1, 2), keepdims=True).astype(jnp.int32) - low
    stretched = (images.astype(jnp.int32) - low) * 255 // jnp.maximum(span, 1)
    return jnp.where(span > 0, stretched, images.astype(jnp.int32)).astype(jnp.uint8)


def equalize(images: jax.Array) -> jax.Array:
    """Flattens the histogram of each channel of each image, like Pillow's ``ImageOps.equalize``.

    >>> image = jnp.repeat(jnp.arange(4, dtype=jnp.uint8), 256).reshape(1, 32, 32, 1)
    >>> jnp.unique(equalize(image)).tolist()
    [0, 85, 171, 255]

    Args:
      images: uint8 [B,H,W,C].

    Returns:
      uint8 [B,H,W,C].
    """
    batch, height, width, channels = images.shape
    values = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height * width).astype(jnp.int32)
    histogram = jax.vmap(lambda row: jnp.zeros(LEVELS, jnp.int32).at[row].add(1, mode="promise_in_bounds"))(values)
    below = jnp.cumsum(histogram, -1) - histogram  # [BC,256]
    highest = jnp.take_along_axis(histogram, values.max(-1, keepdims=True), axis=-1)  # [BC,1]
    step = (height * width - highest) // 255
    table = jnp.where(
        step > 0, jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255), jnp.arange(LEVELS, dtype=jnp.int32)
    )
    result = jnp.take_along_axis(table.astype(jnp.uint8), values, axis=-1, mode="promise_in_bounds")
    return jnp.moveaxis(result.reshape(batch, channels, height, width), 1, -1)


def color_jitter(key: jax.Array, images: jax.Array, strength: float) -> jax.Array:
    """Changes brightness, contrast and saturation at random. Each image has its own factors and its own order.

    >>> jittered = color_jitter(jax.random.key(0), jnp.full((2, 4, 4, 3), 100, jnp.uint8), 0.4)
    >>> jittered.shape, jittered.dtype
    ((2, 4, 4, 3), dtype('uint8'))

    Args:
      key: a PRNG key.
      images: uint8 [B,H,W,C].
      strength: s, in (0, 1]. The factors are uniform in [1 - s, 1 + s].

    Returns:
      uint8 [B,H,W,C].

    Reference:
      torchvision's ``ColorJitter``, without the change of hue.
    """
    factor, rank = jax.random.uniform(key, (2, 3, images.shape[0]))
    return enhance(images, jnp.argsort(rank, axis=0), 1 + strength * (2 * factor - 1))


def enhance(images: jax.Array, order: jax.Array, factors: jax.Array) -> jax.Array:
    """Changes brightness, contrast and saturation, in an order that is given for each image.

    >>> image = jnp.array([100, 50, 0], jnp.uint8).reshape(1, 1, 1, 3)
    >>> enhance(image, jnp.array([[0], [1], [2]]), jnp.array([[2.0], [1.0], [1.0]])).ravel().tolist()
    [200, 100, 0]

    Args:
      images: uint8 [B,H,W,C].
      order: what comes first, second and third, int32 [3,B]: 0 is brightness, 1 contrast, 2 saturation.
      factors: factors of the first, second and third change, float32 [3,B]. A factor of 1 changes nothing.

    Returns:
      uint8 [B,H,W,C]. An alpha channel stays as it is.
    """
    original = images
    for which, factor in zip(order, factors, strict=True):
        which = which[:, None, None, None]
        degenerate = jnp.where(which == 0, 0, jnp.where(which == 1, mean_gray(images), grayscale(images)))
        images = blend(degenerate, images, factor)
    return keep_alpha(original, images)
