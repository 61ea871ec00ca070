"""Corruptions by weather: snow, frost, fog, and brightness."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.evaluate.corruptions.blur import blur_along, zoom_matrix
from convnext_jax.evaluate.corruptions.constants import Constants, truncated, unit
from convnext_jax.evaluate.corruptions.resampling import along_columns, along_rows

# Of the flakes: mean, deviation, enlargement, threshold, radius and deviation of the blur; what the image keeps.
_SNOW = (
    (0.1, 0.2, 1, 0.6, 8, 3),
    (0.1, 0.2, 1, 0.5, 10, 4),
    (0.15, 0.3, 1.75, 0.55, 10, 4),
    (0.25, 0.3, 2.25, 0.6, 12, 6),
    (0.3, 0.3, 1.25, 0.65, 14, 12),
)
_SNOW_KEPT = Constants((0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.8, 0.7, 0.65, 0.6))
_FROST = Constants(  # factors of the image and of the frost
    ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
)
_FOG = Constants(  # amount, and how much finer fog is thinner
    ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75))
)
_ADDED = Constants((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))
_LUMA = (0.299, 0.587, 0.114)


def snow(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Brightens the image, and adds flakes in motion and the same turned by 180 degrees.

    Args:
      key: a PRNG key.
      image: uint8 [H,W,C].
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C] on the scale [0, 255], to be clipped.
    """
    for_flakes, for_angle = jax.random.split(key)
    table = np.asarray(_SNOW)
    mean, deviation, _, threshold, _, _ = jnp.asarray(table, jnp.float32)[severity]
    rows, columns = (
        jnp.asarray(np.stack([zoom_matrix(size, float(factor)) for factor in table[:, 2]]), jnp.float32)[severity]
        for size in image.shape[:2]
    )
    flakes = mean + deviation * jax.random.normal(for_flakes, (*image.shape[:2], 1))
    flakes = along_rows(columns, along_columns(rows, flakes))
    flakes = truncated(255.0 * jnp.where(flakes < threshold, 0.0, jnp.clip(flakes, 0.0, 1.0)))
    degrees = jax.random.uniform(for_angle, (), minval=-135.0, maxval=-45.0)
    flakes = blur_along(flakes, degrees, table[:, 4:], severity)
    pixels, kept = image.astype(jnp.float32), _SNOW_KEPT.at(image, severity)
    bright = jnp.maximum(pixels, 1.5 * luma(pixels) + 127.5)
    return kept * pixels + (1 - kept) * bright + flakes + flakes[::-1, ::-1]


def luma(image: jax.Array) -> jax.Array:
    """Returns the brightness of an image, float32 [H,W,1]; of a gray one it is the image itself."""
    if image.shape[-1] == 1:
        return image
    return sum((weight * image[..., index, None] for index, weight in enumerate(_LUMA)), start=jnp.float32(0))


def frost(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Mixes the image with frost; see `snow` for the arguments.

    Only the two factors are the published ones. The published generator cuts the frost out of photographs, which do not
    ship with this project. Here it is `frost_texture`, so accuracies under frost cannot be compared with others'.
    """
    of_image, of_frost = _FROST.at(image, severity)
    texture = frost_texture(key, *image.shape[:2])
    return of_image * image.astype(jnp.float32) + of_frost * (luma(texture) if image.shape[-1] == 1 else texture)


def frost_texture(key: jax.Array, height: int, width: int) -> jax.Array:
    """Returns bluish white ridges, a stand-in for a photograph of frost, float32 [height,width,3], mostly in [0, 255].

    It is noise of several scales, folded so that its zero crossings become bright lines (Musgrave's ridged noise). Its
    brightness is drawn from the range of the published photographs; contrast and color are their mean.
    """
    for_brightness, for_ridges = jax.random.split(key)
    ends = np.cumsum([(cells + 1) ** 2 for cells, _ in _FROST_SCALES])
    draws = jnp.split(jax.random.normal(for_ridges, (int(ends[-1]),)), ends[:-1].tolist())
    ridges = jnp.zeros((height, width, 1), jnp.float32)
    for drawn, (cells, weight) in zip(draws, _FROST_SCALES, strict=True):
        rows, columns = (jnp.asarray(_interpolation(size, cells + 1), jnp.float32) for size in (height, width))
        noise = along_rows(columns, along_columns(rows, drawn.reshape(cells + 1, cells + 1, 1)))
        ridges += weight * jnp.exp(-2.0 * jnp.abs(noise))
    ridges -= ridges.mean()
    ridges /= jnp.sqrt((ridges**2).mean())
    brightness = jax.random.uniform(for_brightness, (), minval=120.0, maxval=207.0)
    return brightness + _FROST_CONTRAST * ridges + jnp.asarray(_FROST_TINT, jnp.float32)


_FROST_SCALES = ((3, 0.5), (6, 0.8), (11, 1.0), (19, 0.8))  # cells along a side, and weight
_FROST_CONTRAST = 28.0
_FROST_TINT = (-18.0, 3.0, 15.0)


def _interpolation(size: int, points: int) -> np.ndarray:
    """Returns the matrix that interpolates linearly between equally spaced points, float64 [size,points]."""
    where = np.linspace(0, points - 1, size)
    return np.maximum(0.0, 1.0 - np.abs(where[:, None] - np.arange(points)))


def fog(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Adds a fractal cloud, and scales so that the brightest value stays; see `snow` for the arguments."""
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    amount, decay = _FOG.at(image, severity)
    sides = [1 << step for step in range(side.bit_length() - 1)]
    ends = np.cumsum([3 * side**2 for side in sides])
    draws = jnp.split(jax.random.uniform(key, (int(ends[-1]),), minval=-1.0), ends[:-1].tolist())
    draws = [drawn.reshape(3, side, side) for drawn, side in zip(draws, sides, strict=True)]
    pixels = unit(image)
    brightest = unit(image.max())
    cloud = plasma(draws, decay)[:height, :width, None]
    return 255.0 * (pixels + amount * cloud) * brightest / (brightest + amount)


def plasma(draws: Sequence[jax.Array], decay: jax.Array) -> jax.Array:
    """Returns a fractal cloud by the diamond-square algorithm, which begins with one point and wraps around.

    Each step sets the centers of all squares to the mean of their corners, then the centers of all edges to the mean of
    their ends and of the two nearest centers. To each it adds noise, of an amplitude that the square of ``decay``
    divides from one step to the next.

    Args:
      draws: for each of K steps numbers in [-1, 1], float32 [3,2^k,2^k] with k = 0 to K - 1: for the centers, the
        horizontal and the vertical edges.
      decay: float32 scalar.

    Returns:
      float32 [2^K,2^K] from 0 to 1.
    """
    corners, amplitude = jnp.zeros((1, 1), jnp.float32), jnp.float32(100.0**2)
    for for_centers, for_across, for_down in draws:
        pairs = corners + jnp.roll(corners, -1, 0)
        centers = (pairs + jnp.roll(pairs, -1, 1)) / 4 + amplitude * for_centers
        across = centers + jnp.roll(centers, 1, 0) + corners + jnp.roll(corners, -1, 1)
        down = centers + jnp.roll(centers, 1, 1) + corners + jnp.roll(corners, -1, 0)
        upper = jnp.stack([corners, across / 4 + amplitude * for_across], -1)  # [n,n,2]
        lower = jnp.stack([down / 4 + amplitude * for_down, centers], -1)
        corners = jnp.stack([upper, lower], 1).reshape(2 * len(corners), -1)  # [n,2,n,2] -> [2n,2n]
        amplitude /= decay**2
    corners -= corners.min()
    return corners / corners.max()


def brightness(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Adds to the value of hue, saturation and value, up to 1; see `snow` for the arguments.

    With hue and saturation fixed, red, green and blue are proportional to the value. Black becomes gray.
    """
    del key
    pixels = image.astype(jnp.float32)
    value = pixels.max(-1, keepdims=True)
    brighter = jnp.minimum(value + 255.0 * _ADDED.at(image, severity), 255.0)
    return jnp.where(value > 0, pixels * (brighter / jnp.maximum(value, 1.0)), brighter)
