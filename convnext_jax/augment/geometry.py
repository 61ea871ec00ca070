"""Operations that move pixels: crops, flips and affine maps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.augment.boxes import random_box
from convnext_jax.keys import Stream, stream_key


def random_crop(key: jax.Array, images: jax.Array, padding: int, fill: jax.Array | None = None) -> jax.Array:
    """Pads each image and crops it to its own size at a random position.

    >>> random_crop(jax.random.key(0), jnp.ones((2, 4, 6, 3)), padding=2).shape
    (2, 4, 6, 3)

    Args:
      key: a PRNG key.
      images: [B,H,W,C].
      padding: number of pixels added on each side; 0 returns the images as they are. Reflection needs a padding that is
        less than H and W.
      fill: color of the padding, [C] of the images' dtype. If None, the image is reflected, without repeating the
        pixels on its border.

    Returns:
      [B,H,W,C] of the same dtype. The (2 padding + 1)^2 positions are equally likely.
    """
    if padding == 0:
        return images
    batch, height, width, channels = images.shape
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    if fill is None:
        padded = jnp.pad(images, pads, mode="reflect")
    else:
        padded = jnp.pad(images - fill, pads) + fill  # uint8 wraps around modulo 256, and back
    offsets = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    # A TPU would take the slices of a batch one after another.
    on_tpu = functools.partial(crop_by_choice, padding)
    return jax.lax.platform_dependent(padded, offsets, tpu=on_tpu, default=jax.vmap(crop))


def crop_by_choice(padding: int, padded: jax.Array, offsets: jax.Array) -> jax.Array:
    """Crops each image by a choice between all positions, first of the rows and then of the columns.

    Args:
      padding: p, number of pixels that were added on each side.
      padded: [B,H + 2 p,W + 2 p,C].
      offsets: the row and the column where each crop begins, in [0, 2 p], int32 [B,2].

    Returns:
      [B,H,W,C]
    """
    for axis in (1, 2):
        size, begins = padded.shape[axis] - 2 * padding, offsets[:, axis - 1, None, None, None]
        at = [jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(2 * padding + 1)]
        padded = at[0]
        for start, crop in enumerate(at[1:], 1):
            padded = jnp.where(begins == start, crop, padded)
    return padded


def mirror(images: jax.Array, mirrored: jax.Array) -> jax.Array:
    """Mirrors some of the images left to right.

    >>> mirror(jnp.arange(3).reshape(1, 1, 3, 1), jnp.array([True])).ravel().tolist()
    [2, 1, 0]

    Args:
      images: [B,H,W,C].
      mirrored: which images to mirror, bool [B].

    Returns:
      [B,H,W,C] of the same dtype.
    """
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1, :], images)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability 1/2, independently of the others.

    >>> random_flip(jax.random.key(0), jnp.ones((2, 4, 6, 3))).shape
    (2, 4, 6, 3)

    Args:
      key: a PRNG key.
      images: [B,H,W,C].

    Returns:
      [B,H,W,C] of the same dtype.
    """
    return mirror(images, jax.random.bernoulli(key, 0.5, images.shape[:1]))


def alternating_flip(seed: int | jax.Array, epoch: int | jax.Array, indices: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each example in every other epoch. Whether an example starts mirrored is drawn once per run.

    Any two consecutive epochs show every example both ways. With independent draws, half of the examples would be shown
    the same way twice.

    >>> image = jnp.arange(3).reshape(1, 1, 3, 1)
    >>> first, second, third = (alternating_flip(0, epoch, jnp.array([7]), image)[0, 0, 0, 0] for epoch in range(3))
    >>> bool(first != second), bool(first == third)
    (True, True)

    Args:
      seed: the run's seed, an integer or a uint32 scalar.
      epoch: the epoch of the batch, from 0.
      indices: indices of the examples in their split, int32 [B].
      images: [B,H,W,C].

    Returns:
      [B,H,W,C] of the same dtype.

    Reference:
      Jordan, `94% on CIFAR-10 in 3.29 Seconds on a Single GPU <https://arxiv.org/abs/2404.00498>`_, 2024.
    """
    key = stream_key(seed, Stream.FLIP, 0)
    first = jax.vmap(lambda index: jax.random.bits(jax.random.fold_in(key, index), dtype=jnp.uint32))(indices)
    return mirror(images, (first + jnp.uint32(epoch)) % 2 == 1)


def affine(
    images: jax.Array, matrices: jax.Array, fill: jax.Array | None = None, box: jax.Array | None = None
) -> jax.Array:
    """Resamples each image under its own affine map, bilinearly, like Pillow's ``Image.transform``.

    The pixel of the result with its center at (x, y) shows the point ``(a x + b y + c, d x + e y + f)`` of the image.
    Coordinates are in pixels from the upper left corner.

    >>> image = jnp.array([10, 20, 30], jnp.uint8).reshape(1, 1, 3, 1)
    >>> one_to_the_left = jnp.array([[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]])
    >>> affine(image, one_to_the_left, fill=jnp.zeros(1, jnp.uint8)).ravel().tolist()
    [20, 30, 0]

    Args:
      images: uint8 [B,H,W,C], C from 1 to 4.
      matrices: the numbers a to f, float32 [B,6].
      fill: color of points outside of the image, uint8 [C]. If None, they take the color of the nearest pixel.
      box: left, upper, right and lower bounds of the pixels that are read, int32 [B,4]. Everything else counts as
        outside of the image. If None, the whole image is read.

    Returns:
      uint8 [B,H,W,C], truncated as in Pillow.
    """
    batch, height, width, channels = images.shape
    x_source, y_source = _sources(matrices, height, width)
    left, upper, right, lower = _bounds(box, height, width)
    column, across = _neighbors(x_source, left, right)
    row, along = _neighbors(y_source, upper, lower)
    # All channels of a pixel are gathered as one number.
    packed = _pack(images).reshape(batch, height * width)

    def pixels(row: jax.Array, column: jax.Array) -> jax.Array:
        positions = (row * width + column).reshape(batch, height * width)
        found = jnp.take_along_axis(packed, positions, axis=1, mode="promise_in_bounds")
        return _unpack(found.reshape(batch, height, width), channels)  # [B,H,W,C]

    over = pixels(row[0], column[0]), pixels(row[0], column[1])
    under = pixels(row[1], column[0]), pixels(row[1], column[1])
    across, along = across[..., None], along[..., None]
    top = over[0] + (over[1] - over[0]) * across
    bottom = under[0] + (under[1] - under[0]) * across
    result = (top + (bottom - top) * along).astype(jnp.uint8)
    if fill is None:
        return result
    return jnp.where(_is_inside(x_source, y_source, (left, upper, right, lower)), result, fill)


def affine_nearest(
    masks: jax.Array, matrices: jax.Array, fill: int | jax.Array | None = None, box: jax.Array | None = None
) -> jax.Array:
    """Resamples each mask under its own affine map, as `affine` does an image, but with the value of the nearest pixel.

    >>> mask = jnp.array([1, 2, 3], jnp.uint8).reshape(1, 1, 3, 1)
    >>> one_and_a_bit = jnp.array([[1.0, 0.0, 1.4, 0.0, 1.0, 0.0]])
    >>> affine_nearest(mask, one_and_a_bit, fill=255).ravel().tolist()
    [2, 3, 255]

    Args:
      masks: [B,H,W,C].
      matrices: see `affine`, float32 [B,6].
      fill: value of points outside of the mask. If None, they take the value of the nearest pixel.
      box: see `affine`.

    Returns:
      [B,H,W,C] of the same dtype.
    """
    batch, height, width, channels = masks.shape
    x_source, y_source = _sources(matrices, height, width)
    left, upper, right, lower = _bounds(box, height, width)
    column, row = jnp.floor(x_source).astype(jnp.int32), jnp.floor(y_source).astype(jnp.int32)
    positions = jnp.clip(row, upper, lower - 1) * width + jnp.clip(column, left, right - 1)
    found = jnp.take_along_axis(
        masks.reshape(batch, height * width, channels),
        positions.reshape(batch, height * width, 1),
        axis=1,
        mode="promise_in_bounds",
    ).reshape(masks.shape)
    if fill is None:
        return found
    is_inside = _is_inside(x_source, y_source, (left, upper, right, lower))
    return jnp.where(is_inside, found, jnp.asarray(fill, masks.dtype))


def _sources(matrices: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns the points that the pixels show, [B,H,W] each."""
    a, b, c, d, e, f = (matrices[:, index, None, None] for index in range(6))
    x = jnp.arange(width, dtype=jnp.float32) + 0.5
    y = (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None]
    return a * x + b * y + c, d * x + e * y + f


def _bounds(box: jax.Array | None, height: int, width: int) -> tuple[Any, Any, Any, Any]:
    """Returns the left, upper, right and lower bounds of what is read, whole images without a box."""
    if box is None:
        return 0, 0, width, height
    left, upper, right, lower = (box[:, index, None, None] for index in range(4))
    return left, upper, right, lower


def _is_inside(x: jax.Array, y: jax.Array, bounds: tuple[Any, Any, Any, Any]) -> jax.Array:
    """Returns whether points are within the bounds of `_bounds`, bool [B,H,W,1]."""
    left, upper, right, lower = bounds
    return ((x >= left) & (x < right) & (y >= upper) & (y < lower))[..., None]


def _neighbors(
    source: jax.Array, low: int | jax.Array, high: int | jax.Array
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Returns the two pixels in [low, high) whose centers enclose a point, and its distance from the first."""
    source = source - 0.5
    first = jnp.floor(source)
    index = first.astype(jnp.int32)
    return (jnp.clip(index, low, high - 1), jnp.clip(index + 1, low, high - 1)), source - first


def _pack(images: jax.Array) -> jax.Array:
    """Packs the C <= 4 bytes of each pixel into one number: uint8 [B,H,W,C] -> uint32 [B,H,W]."""
    values = images.astype(jnp.uint32)
    return sum((values[..., index] << (8 * index) for index in range(1, images.shape[-1])), start=values[..., 0])


def _unpack(packed: jax.Array, channels: int) -> jax.Array:
    """Unpacks what `_pack` packed: uint32 [...] -> float32 [...,C]."""
    shifts = jnp.arange(channels, dtype=jnp.uint32) * 8
    return ((packed[..., None] >> shifts) & 255).astype(jnp.float32)


def random_resized_crop(
    key: jax.Array,
    images: jax.Array,
    min_area: float,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    resample: Callable[..., jax.Array] = affine,
) -> jax.Array:
    """Cuts a random rectangle out of each image and resizes it to the size of the image, bilinearly.

    >>> images = jnp.full((2, 4, 6, 3), 100, jnp.uint8)
    >>> random_resized_crop(jax.random.key(0), images, 0.5).shape
    (2, 4, 6, 3)

    Args:
      key: a PRNG key.
      images: uint8 [B,H,W,C].
      min_area: smallest share of the image's area, in (0, 1]. The share is drawn uniformly between it and 1.
      ratio: smallest and largest ratio of width to height. The ratio is drawn uniformly on a logarithmic scale.
      resample: how, `affine_nearest` for masks.

    Returns:
      uint8 [B,H,W,C]. An image stays as it is if ten random rectangles in a row do not fit.

    Reference:
      Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2015; torchvision's
      ``RandomResizedCrop``.
    """
    matrices, box = random_crop_maps(key, images.shape, min_area, ratio)
    return resample(images, matrices, box=box)


def random_crop_maps(
    key: jax.Array, shape: tuple[int, ...], min_area: float, ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> tuple[jax.Array, jax.Array]:
    """Returns the maps, float32 [B,6], and the boxes, int32 [B,4], of `random_resized_crop` for `affine`.

    Args:
      key: a PRNG key.
      shape: of the images, [B,H,W,...].
      min_area: see `random_resized_crop`.
      ratio: the same.
    """
    batch, height, width, *_ = shape
    box, fits = random_box(key, batch, height, width, (min_area, 1.0), ratio)
    box = jnp.where(fits[:, None], box, jnp.asarray((0, 0, width, height), jnp.int32))
    left, upper, right, lower = (box[:, index].astype(jnp.float32) for index in range(4))
    zero = jnp.zeros_like(left)
    scale_x, scale_y = (right - left) / width, (lower - upper) / height
    return jnp.stack([scale_x, zero, left, zero, scale_y, upper], -1), box


def random_rotation_maps(key: jax.Array, shape: tuple[int, ...], degrees: float, zoom: float) -> jax.Array:
    """Returns maps for `affine` that turn each image about its center and enlarge or shrink it.

    Args:
      key: a PRNG key.
      shape: of the images, [B,H,W,...].
      degrees: the largest angle. Angles are uniform between it and its negative.
      zoom: the largest factor, 1 or more. Factors are between it and its inverse, uniform on a logarithmic scale.

    Returns:
      float32 [B,6].
    """
    batch, height, width, *_ = shape
    for_angle, for_zoom = jax.random.split(key)
    angle = jnp.deg2rad(degrees) * jax.random.uniform(for_angle, (batch,), minval=-1.0)
    factor = jnp.exp(jnp.log(zoom) * jax.random.uniform(for_zoom, (batch,), minval=-1.0))
    cosine, sine = jnp.cos(angle) / factor, jnp.sin(angle) / factor
    x, y = width / 2, height / 2  # the center stays where it is
    return jnp.stack([cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y], -1)
