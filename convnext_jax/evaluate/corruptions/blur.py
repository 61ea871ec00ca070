"""Corruptions by blur: out of focus, through frosted glass, by motion, by zooming."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from convnext_jax.evaluate.corruptions.constants import Constants, truncated
from convnext_jax.evaluate.corruptions.resampling import along_columns, along_rows, gaussian_filter, sum_of_shifts

_DISK = Constants(  # radius in pixels, and the deviation of the Gaussian that smooths its edge
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
)
_DISK_REACH = 4  # pixels from the center to the last weight of the largest disk
_GLASS = Constants(  # deviation, farthest pixel, repetitions
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
)
_MOTION = Constants(  # radius and deviation
    ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))
)
_ZOOM_ENDS = (1.06, 1.11, 1.16, 1.21, 1.26)  # the factors are 1, 1.01, 1.02 and so on, at both sizes


def defocus_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Averages over a disk with a soft edge. Beyond an edge the image is reflected.

    Args:
      key: not used.
      image: uint8 [H,W,C], H and W at least 5.
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C] on the scale [0, 255].
    """
    del key
    side = 2 * _DISK_REACH + 1
    kernels = np.stack([_disk(radius, deviation) for radius, deviation in _DISK.rows(image)])
    weights = jnp.asarray(kernels.reshape(5, -1), jnp.float32)[severity]
    pads = (_DISK_REACH, _DISK_REACH)
    padded = jnp.pad(image.astype(jnp.float32), (pads, pads, (0, 0)), mode="reflect")
    rows, columns = jnp.divmod(jnp.arange(side * side, dtype=jnp.int32), side)
    return sum_of_shifts(padded, rows, columns, weights, image)


def _disk(radius: float, deviation: float) -> np.ndarray:
    """Returns the weights of a disk, smoothed by 3x3 weights of a Gaussian."""
    line = np.arange(-_DISK_REACH, _DISK_REACH + 1)
    disk = (line**2 + line[:, None] ** 2 <= radius**2).astype(np.float64)
    smooth = np.exp(-(np.array([-1.0, 0.0, 1.0]) ** 2) / (2 * deviation**2))
    smooth /= smooth.sum()
    return ndimage.convolve(disk / disk.sum(), np.outer(smooth, smooth), mode="constant")


def glass_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Blurs, moves pixels by up to one or two at random, and blurs again; see `gaussian_noise` for the arguments.

    The published generator means to exchange pairs of pixels. What its code does to color images, and so what is in the
    published data, is to copy the second of the pair to the first. The same is done here.
    """
    table = _GLASS.rows(image)
    weights = jnp.asarray(np.stack([_gaussian_weights(row[0], table[:, 0].max()) for row in table]), jnp.float32)
    _, reach, repetitions = _GLASS.at(image, severity)
    blurred = truncated(gaussian_filter(image.astype(jnp.float32), weights[severity]))
    reach = reach.astype(jnp.int32)
    most, size = int(table[:, 2].max()), image.shape[0] * image.shape[1]
    offsets = jax.random.randint(key, (most, 2, size), -reach, reach)
    for repetition in range(most):
        copied = copy_neighbors(blurred, offsets[repetition], reach)
        blurred = jnp.where(repetition < repetitions, copied, blurred)
    return gaussian_filter(blurred, weights[severity])


def _gaussian_weights(deviation: float, largest: float) -> np.ndarray:
    """Returns the weights of a Gaussian that ends at four deviations, with zeros up to the end of the largest one."""
    reach, longest = int(4 * deviation + 0.5), int(4 * largest + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    return np.pad(weights / weights.sum(), longest - reach)


def copy_neighbors(image: jax.Array, offsets: jax.Array, reach: jax.Array) -> jax.Array:
    """Copies to each pixel one nearby, the last pixel first, so that a later copy sees the earlier ones.

    Rows and columns with an index up to ``reach``, or above the size less ``reach``, keep their pixels.

    Args:
      image: float32 [H,W,C].
      offsets: how far down and right of each pixel the one that it shows is, ``-reach`` to ``reach - 1``, int32
        [2,H*W].
      reach: int32 scalar.
    """
    height, width, channels = image.shape
    row, column = jnp.divmod(jnp.arange(height * width, dtype=jnp.int32), width)
    inside = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
    source = jnp.where(inside, (row + offsets[0]) * width + column + offsets[1], row * width + column)
    # The copy to a later pixel came before, so there the copy's own source counts. Entries from H*W on stand for pixels
    # as they were, and end a chain. A chain has fewer than H*W links, and each step doubles those that are followed.
    here = jnp.arange(height * width, dtype=jnp.int32)
    copied_before = (source > here) & inside[source]
    link = jnp.concatenate([jnp.where(copied_before, source, source + height * width), here + height * width])
    for _ in range((height * width).bit_length()):
        link = link[link]
    return image.reshape(-1, channels)[link[: height * width] - height * width].reshape(image.shape)


def motion_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Blurs along a line at -45 to 45 degrees, as ImageMagick does; see `gaussian_noise` for the arguments."""
    degrees = jax.random.uniform(key, (), minval=-45.0, maxval=45.0)
    return blur_along(image.astype(jnp.float32), degrees, _MOTION.rows(image), severity)


def blur_along(image: jax.Array, degrees: jax.Array, table: np.ndarray, severity: jax.Array) -> jax.Array:
    """Blurs along a line that begins at each pixel, like ImageMagick's ``MotionBlurImage``.

    The weights are one half of a Gaussian, on ``2 radius + 1`` pixels. Beyond an edge the image repeats it.

    Args:
      image: float32 [H,W,C] on the scale [0, 255].
      degrees: from the x axis to the y axis, float32 scalar.
      table: radius and deviation at each severity, [5,2].
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C], whole numbers; ImageMagick truncates.
    """
    longest = 2 * int(table[:, 0].max()) + 1
    taps = np.arange(longest)
    weights = np.exp(-(taps**2) / (2 * table[:, 1:] ** 2)) * (taps < 2 * table[:, :1] + 1)
    weights = jnp.asarray(weights / weights.sum(-1, keepdims=True), jnp.float32)[severity]
    angle = jnp.deg2rad(degrees)
    rows, columns = (
        jnp.ceil(jnp.asarray(taps, jnp.float32) * along - 0.5).astype(jnp.int32)
        for along in (jnp.sin(angle), jnp.cos(angle))
    )
    pads = (longest - 1, longest - 1)
    padded = jnp.pad(image, (pads, pads, (0, 0)), mode="edge")
    return truncated(sum_of_shifts(padded, rows + longest - 1, columns + longest - 1, weights, image))


def zoom_blur(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Averages the image and its enlargements by 1, 1.01, 1.02 and so on; see `defocus_blur` for the arguments."""
    del key
    # The number of factors depends on the rounding of these steps.
    counts = [len(np.arange(1, end, 0.01)) for end in _ZOOM_ENDS]
    factors = np.arange(1, _ZOOM_ENDS[-1], 0.01)
    pixels = image.astype(jnp.float32)
    rows, columns = (
        jnp.asarray(np.stack([zoom_matrix(size, float(factor)) for factor in factors]), jnp.float32)
        for size in image.shape[:2]
    )
    count = jnp.asarray(counts, jnp.int32)[severity]

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        return total + along_rows(columns[index], along_columns(rows[index], pixels))

    return jax.lax.fori_loop(0, count, add, pixels) / (count + 1).astype(jnp.float32)


@functools.cache
def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Returns what enlarging about the center does to a line of pixels, as a matrix, float64 [size,size].

    The pixels in the middle are enlarged by `scipy.ndimage.zoom`, and the middle of the result is cut out.
    """
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    rows = np.asarray(ndimage.zoom(np.eye(size)[top : top + crop], (factor, 1), order=1))
    trim = (len(rows) - size) // 2
    return rows[trim : trim + size]
