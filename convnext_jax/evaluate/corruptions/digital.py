"""Digital corruptions: contrast, elastic distortion, pixelation. JPEG compression has its own file."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from convnext_jax.evaluate.corruptions.constants import Constants
from convnext_jax.evaluate.corruptions.resampling import along_columns, along_rows, bilinear, mirror, reflect

_CONTRAST = Constants((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
_PIXELATE = Constants((0.95, 0.9, 0.85, 0.75, 0.65), (0.9, 0.8, 0.7, 0.6, 0.5))
_ELASTIC = Constants(  # as shares of the side: distance, its smoothness, and by how far corners move
    ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
)


def contrast(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Moves each value toward the mean of its channel.

    Args:
      key: not used.
      image: uint8 [H,W,C].
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C] on the scale [0, 255].
    """
    del key
    # A sum of whole numbers is exact in any order.
    means = image.astype(jnp.int32).sum((0, 1)).astype(jnp.float32) / (image.shape[0] * image.shape[1])
    return (image - means) * _CONTRAST.at(image, severity) + means


def pixelate(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Reduces and enlarges the image with Pillow's box filter; see `contrast` for the arguments."""
    del key
    shares = tuple(_PIXELATE.rows(image).tolist())
    on_rows, on_columns = (jnp.asarray(_box_matrices(size, shares))[:, severity] for size in image.shape[1::-1])
    pixels = image.astype(jnp.float32)
    for row_matrix, column_matrix in zip(on_rows, on_columns, strict=True):
        # Pillow rounds after each direction.
        pixels = _rounded(along_columns(column_matrix, _rounded(along_rows(row_matrix, pixels))))
    return pixels


def _rounded(values: jax.Array) -> jax.Array:
    return jnp.floor(values + 0.5 + 1e-4)  # means of whole numbers, which are halves or well away from them


@functools.cache
def _box_matrices(size: int, shares: tuple[float, ...]) -> np.ndarray:
    """Returns what Pillow's box filter does to a line of pixels, for each share of its size, down and up again.

    Returns:
      float32 [2,5,size,size]. The rows and columns beyond the smaller size are zeros.
    """
    matrices = np.zeros((2, len(shares), size, size), np.float32)
    for index, share in enumerate(shares):
        small = int(size * share)
        matrices[0, index, :small] = _resized(np.eye(size), small)
        matrices[1, index, :, :small] = _resized(np.eye(small), size)
    return matrices


def _resized(lines: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(lines.astype(np.float32))
    return np.asarray(image.resize((image.width, size), Image.Resampling.BOX))


def elastic_transform(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Applies a random affine map near the identity, then moves each pixel by a smooth random distance.

    Both interpolate bilinearly. Beyond an edge the image is reflected.

    Args:
      key: a PRNG key.
      image: uint8 [H,W,C].
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C] on the scale [0, 255].
    """
    height, width = image.shape[:2]
    draws = jax.random.uniform(key, (6 + 2 * height * width,), minval=-1.0)
    side = min(height, width)
    table = _ELASTIC.rows(image)
    distance, _, corners = side * _ELASTIC.at(image, severity)
    y, x = affine_points(height, width, corners * draws[:6].reshape(3, 2))
    warped = bilinear(image.astype(jnp.float32), y, x, reflect)
    rows, columns = (
        jnp.asarray(np.stack([_smoothing(size, float(side * share)) for share in table[:, 1]]), jnp.float32)[severity]
        for size in (height, width)
    )
    right_down = draws[6:].reshape(2, height, width).transpose(1, 2, 0)
    right_down = distance * along_rows(columns, along_columns(rows, right_down))  # [H,W,2]
    y, x = _grid(height, width)
    return bilinear(warped, y + right_down[..., 1], x + right_down[..., 0], mirror)


def _grid(height: int, width: int) -> tuple[jax.Array, jax.Array]:
    y, x = jnp.meshgrid(jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32), indexing="ij")
    return y, x


def affine_points(height: int, width: int, moves: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the point that each pixel shows if three points around the center move, two float32 [H,W].

    Args:
      height: of the image.
      width: of the image.
      moves: how far right and down each of the three points moves, float32 [3,2].
    """
    center, arm = np.array([width // 2, height // 2], np.float32), min(height, width) // 3
    before = center + arm * np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    after = before + moves
    (a, b), (c, d) = after[1] - after[0], after[2] - after[0]
    determinant = a * d - b * c
    y, x = _grid(height, width)
    right, down = x - after[0, 0], y - after[0, 1]
    # Coordinates along the two moved edges, then the same along the edges before.
    first, second = (d * right - c * down) / determinant, (a * down - b * right) / determinant
    edges = before[1:] - before[0]
    return (
        before[0, 1] + first * edges[0, 1] + second * edges[1, 1],
        before[0, 0] + first * edges[0, 0] + second * edges[1, 0],
    )


@functools.cache
def _smoothing(size: int, deviation: float) -> np.ndarray:
    """Returns what a Gaussian filter does to a line of pixels, as a matrix, float64 [size,size]."""
    return (
        ndimage.gaussian_filter1d(np.eye(size), deviation, axis=0, mode="reflect", truncate=3)
        if deviation
        else np.eye(size)
    )
