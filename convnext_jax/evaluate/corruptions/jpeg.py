"""JPEG compression: what an image looks like after libjpeg encoded and decoded it, in exact whole numbers.

Huffman coding loses nothing, so it is left out. The rest is done as libjpeg does it by default: chroma at half the
resolution (4:2:0), the slow and exact integer cosine transform, and smooth upsampling of the chroma.

Reference:
  ITU-T Recommendation T.81, 1992, Annex A and K, and JFIF 1.02.
"""

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.evaluate.corruptions.constants import Constants

_QUALITY = Constants((80, 65, 58, 50, 40), (65, 58, 50, 40, 25))

# Tables K.1 and K.2.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def _cosines() -> np.ndarray:
    """Returns the cosine transform of eight values times 8192 sqrt(8), int32 [8,8], with libjpeg's rounding.

    libjpeg multiplies by sums of rounded constants, so some entries are one off the rounded product.
    """
    even = [
        [8192, 8192, 8192, 8192],
        [10703, 4433, -4433, -10703],
        [8192, -8192, -8192, 8192],
        [4433, -10704, 10704, -4433],
    ]
    odd = [
        [11363, 9633, 6437, 2260],
        [9633, -2259, -11362, -6436],
        [6437, -11362, 2261, 9633],
        [2260, -6436, 9633, -11363],
    ]
    matrix = np.empty((8, 8), np.int32)
    matrix[::2, :4], matrix[1::2, :4] = even, odd
    matrix[::2, 4:], matrix[1::2, 4:] = np.flip(even, 1), -np.flip(odd, 1)
    return matrix


_COSINES = _cosines()
_BITS = 13  # of the fractions in the cosines
_KEPT = 2  # bits of fractions that are kept between the two directions


def jpeg_compression(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Encodes and decodes an image.

    Args:
      key: not used.
      image: uint8 [H,W,C], gray or RGB.
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C], whole numbers from 0 to 255.
    """
    del key
    qualities = _QUALITY.rows(image)
    luminance, chrominance = (
        jnp.asarray(np.stack([quantization_table(base, int(quality)) for quality in qualities]), jnp.int32)[severity]
        for base in (_LUMINANCE, _CHROMINANCE)
    )
    values = image.astype(jnp.int32)
    if image.shape[-1] == 1:
        return _compress(values[..., 0], luminance).astype(jnp.float32)[..., None]
    luma, *chromas = _to_luma_and_chroma(values)
    luma = _compress(luma, luminance)
    chromas = [_enlarge(_compress(_halve(chroma), chrominance), *luma.shape) for chroma in chromas]
    return _to_rgb(luma, *chromas).astype(jnp.float32)


def quantization_table(base: np.ndarray, quality: int) -> np.ndarray:
    """Returns the divisors of the coefficients at a quality, as libjpeg scales them.

    Args:
      base: the table of quality 50, [8,8].
      quality: 1 to 100.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((base * scale + 50) // 100, 1, 255)


def _fraction(value: float) -> int:
    return round(value * 65536)


_HALF = 1 << 15


def _to_luma_and_chroma(image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    red, green, blue = (image[..., index] for index in range(3))
    luma = _fraction(0.299) * red + _fraction(0.587) * green + _fraction(0.114) * blue + _HALF
    middle = (128 << 16) + _HALF - 1
    blueness = -_fraction(0.16874) * red - _fraction(0.33126) * green + _HALF * blue + middle
    redness = _HALF * red - _fraction(0.41869) * green - _fraction(0.08131) * blue + middle
    return luma >> 16, blueness >> 16, redness >> 16


def _to_rgb(luma: jax.Array, blueness: jax.Array, redness: jax.Array) -> jax.Array:
    blueness, redness = blueness - 128, redness - 128
    red = luma + ((_fraction(1.402) * redness + _HALF) >> 16)
    green = luma + ((-_fraction(0.34414) * blueness - _fraction(0.71414) * redness + _HALF) >> 16)
    blue = luma + ((_fraction(1.772) * blueness + _HALF) >> 16)
    return jnp.clip(jnp.stack([red, green, blue], -1), 0, 255)


def _halve(plane: jax.Array) -> jax.Array:
    """Returns the means of 2x2 values, [H,W] -> [ceil(H/2),8n]; halves are rounded down and up in turn."""
    height, width = plane.shape
    plane = jnp.pad(plane, ((0, height % 2), (0, -width % 16)), mode="edge")
    sums = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def _enlarge(plane: jax.Array, height: int, width: int) -> jax.Array:
    """Returns a plane of twice the size, cut to [height,width]: each way 3/4 of the nearest and 1/4 of the next."""
    plane = plane[: -(-height // 2), : -(-width // 2)]
    padded = jnp.pad(plane, 1, mode="edge")
    rows = jnp.stack([3 * plane + padded[:-2, 1:-1], 3 * plane + padded[2:, 1:-1]], 1)
    rows = rows.reshape(-1, plane.shape[1])  # [2h,w], times four
    padded = jnp.pad(rows, ((0, 0), (1, 1)), mode="edge")
    values = jnp.stack([(3 * rows + padded[:, :-2] + 8) >> 4, (3 * rows + padded[:, 2:] + 7) >> 4], -1)
    return values.reshape(len(rows), -1)[:height, :width]


def _compress(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Transforms the blocks of a plane, rounds the coefficients to multiples of a table, and transforms them back.

    Args:
      plane: int32 [H,W] from 0 to 255.
      table: int32 [8,8].
    """
    height, width = plane.shape
    plane = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = plane.reshape(plane.shape[0] // 8, 8, -1, 8).swapaxes(1, 2) - 128  # [n,m,8,8]
    forward, back = _COSINES, _COSINES.T
    blocks = _along_rows(forward, blocks, _BITS - _KEPT)
    blocks = _along_rows(forward, blocks.swapaxes(-1, -2), _BITS + _KEPT).swapaxes(-1, -2)
    divisors = 8 * table  # the transform is eight times the standard's
    whole = (jnp.abs(blocks) + divisors // 2) // divisors
    blocks = jnp.sign(blocks) * whole * table
    blocks = _along_rows(back, blocks.swapaxes(-1, -2), _BITS - _KEPT).swapaxes(-1, -2)
    blocks = _along_rows(back, blocks, _BITS + _KEPT + 3)
    plane = jnp.clip(blocks + 128, 0, 255).swapaxes(1, 2).reshape(plane.shape)
    return plane[:height, :width]


def _along_rows(matrix: np.ndarray, blocks: jax.Array, shift: int) -> jax.Array:
    """Multiplies each row of the blocks, and divides by a power of two, rounding."""
    products = (blocks[..., None, :] * jnp.asarray(matrix)).sum(-1)
    return (products + (1 << (shift - 1))) >> shift
