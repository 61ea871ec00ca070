"""Masks as pictures: a color for each class, over the image, and where a prediction is wrong."""

import functools

import numpy as np
from PIL import Image

from convnext_jax.data.dataset import IGNORED
from convnext_jax.report.pictures import shown

# Okabe and Ito, `Color Universal Design <https://jfly.uni-koeln.de/color/>`_, 2008: eight colors that are told apart
# with any kind of color vision.
_FIRST = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0))
_FIRST += ((204, 121, 167),)
WHITE, RED = (255, 255, 255), (200, 20, 20)
_DARKEST, _LIGHTEST = 45, 88  # lightness in CIELAB, from 0 to 100: darker is lost over a dark image, lighter over white
_OPACITY = 0.6
_STRIPE, _LINE = 8, 2  # pixels from one line of the hatching to the next, and of a line
_STRIP = 256  # rows, a multiple of the stripe
# Machado et al., `A Physiologically-based Model for Simulation of Color Vision Deficiency
# <https://doi.org/10.1109/TVCG.2009.113>`_, 2009: linear RGB as who lacks one kind of cone sees it, full severity.
_SEEN_AS = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
)
_LINEAR_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@functools.cache
def class_colors(count: int) -> np.ndarray:
    """Returns a color for each class, the same ones for any number of classes.

    The first eight are Okabe and Ito's. Each further one is that of a grid of colors that differs most from all before
    it, by the smallest of its distances in CIELAB as normal, protanopic and deuteranopic eyes see them.

    >>> class_colors(3).tolist()
    [[0, 0, 0], [230, 159, 0], [86, 180, 233]]

    Args:
      count: K.

    Returns:
      uint8 [K,3], read-only.
    """
    colors = np.array(_FIRST, np.uint8)
    if count > len(colors):
        levels = np.linspace(0, 255, 11).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
        lightness = _appearances(grid)[0, :, 0]
        grid = grid[(lightness > _DARKEST) & (lightness < _LIGHTEST)]
        seen, there = _appearances(grid), _appearances(colors)
        nearest = np.linalg.norm(seen[:, :, None] - there[:, None], axis=-1).min((0, 2))  # [grid]
        chosen = []
        for _ in range(count - len(colors)):
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, np.linalg.norm(seen - seen[:, chosen[-1:]], axis=-1).min(0))
        colors = np.concatenate([colors, grid[chosen]])
    colors = colors[:count].copy()
    colors.flags.writeable = False
    return colors


def _appearances(colors: np.ndarray) -> np.ndarray:
    """Returns colors, uint8 [N,3], in CIELAB as each kind of eye sees them, float64 [3,N,3]."""
    values = colors / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.stack([linear @ matrix.T for matrix in _SEEN_AS]), 0, 1)
    xyz = seen @ _LINEAR_TO_XYZ.T / _LINEAR_TO_XYZ.sum(1)  # white is (1, 1, 1)
    cube = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(cube, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def palette(count: int) -> list[int]:
    """Returns the 256 colors of a mask that is saved as a PNG with a palette, for Pillow's ``putpalette``.

    Args:
      count: K; `IGNORED` is white, and what is no class is gray.
    """
    colors = np.full((256, 3), 128, np.uint8)
    colors[:count], colors[IGNORED] = class_colors(count), WHITE
    return colors.ravel().tolist()


def mask_picture(mask: np.ndarray, count: int) -> Image.Image:
    """Returns a mask, uint8 [H,W], as a picture with a palette, whose indices are the classes."""
    picture = Image.fromarray(mask)
    picture.putpalette(palette(count))
    return picture


def overlay(image: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """Returns an image in gray below the colors of its classes.

    Args:
      image: uint8 [H,W,C], C from 1 to 4; an alpha channel is left out.
      mask: classes in [0, K), uint8 [H,W]. Where it is `IGNORED`, the image is hatched.
      count: K.

    Returns:
      uint8 [H,W,3].
    """
    colors = np.zeros((256, 3), np.float32)
    colors[:count] = class_colors(count)

    def paint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        gray, ignored = _gray(image), mask == IGNORED
        mixed = (1 - _OPACITY) * gray + _OPACITY * colors[mask]
        return _hatched(np.where(ignored[..., None], gray, mixed), ignored)

    # A strip at a time, or a picture of 8192x8192 pixels would need gigabytes.
    strips = [slice(start, start + _STRIP) for start in range(0, len(mask), _STRIP)]
    return np.concatenate([paint(image[rows], mask[rows]) for rows in strips])


def error_picture(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Returns an image in light gray where a prediction is right, red where it is wrong, and hatched where none counts.

    Args:
      image: uint8 [H,W,C], C from 1 to 4; an alpha channel is left out.
      truth: classes or `IGNORED`, uint8 [H,W].
      predicted: classes, uint8 [H,W].

    Returns:
      uint8 [H,W,3].
    """
    pale = 130 + 0.35 * _gray(image)
    ignored = truth == IGNORED
    wrong = (truth != predicted) & ~ignored
    return _hatched(np.where(wrong[..., None], np.array(RED, np.float32), pale), ignored)


def _gray(image: np.ndarray) -> np.ndarray:
    """Returns the brightness of an image, float32 [H,W,1]."""
    return np.asarray(Image.fromarray(shown(image)).convert("L"), np.float32)[..., None]


def _hatched(image: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Returns an image, float32 [H,W,3 or 1], with white lines where pixels are ignored, uint8 [H,W,3]."""
    rows, columns = np.indices(ignored.shape)
    lines = ignored & ((rows + columns) % _STRIPE < _LINE)
    return np.rint(np.where(lines[..., None], np.array(WHITE, np.float32), image)).astype(np.uint8)
