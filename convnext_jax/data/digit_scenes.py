"""Scenes of one to four handwritten digits, each with a mask, made of the digits that are part of scikit-learn.

Everything is computed with integers from a stream of bits that NumPy guarantees, so it is the same on every machine.
"""

import dataclasses

import numpy as np
from PIL import Image

from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.data.digits import read_digits
from convnext_jax.data.splitting import sum_pixels

SEED = 8  # scene i of a split is a function of (SEED, split, i)
TRAIN_SCENES, TEST_SCENES = 4_000, 800
DEFAULT_SIZE = 64  # sides and positions are chosen on a canvas of this size, and scaled to others
MOST_DIGITS = 4
CLASS_NAMES = ("1 digit", "2 digits", "3 digits", "4 digits")
MASK_NAMES = ("background", *"0123456789")

_SIDES = range(14, 29)  # of a digit
_POSITIONS = 16  # that are tried for a digit: it goes to that where it overlaps the others least
_GRAYS = 4  # a background is interpolated from 4x4 grays
_DRAWS = 3 + _GRAYS**2 + MOST_DIGITS * (3 + 2 * _POSITIONS)  # random numbers for a scene, without the grain


def load_digit_scenes(image_size: int | None = None, channels: int = 3) -> Dataset:
    """Makes the scenes: the training digits of `load_digits` in those to train on, its test digits in those to test on.

    Digits have sides of 14 to 28 pixels, and later ones lie on earlier ones. Ink and background have random grays, and
    ink is always brighter. The class of a pixel is the digit whose ink covers at least half of it. The label of an
    image is how many digits it has, less one.

    Args:
      image_size: side of the square images in pixels; None is 64. The digits are scaled with it.
      channels: number of channels, 1 to 4; see `convnext_jax.data.decode.decode_picture`. The images are always gray.

    Returns:
      The data set, with 4,000 training and 800 test images.

    Raises:
      UserError: scikit-learn is not installed.
    """
    digits, labels, test = read_digits("digit_scenes")
    size = image_size or DEFAULT_SIZE
    train = make_scenes(0, TRAIN_SCENES, digits[~test], labels[~test], size, channels)
    mean, std = sum_pixels(train.images).mean_and_std()
    return Dataset(
        name="digit_scenes",
        train=train,
        test=make_scenes(1, TEST_SCENES, digits[test], labels[test], size, channels),
        class_names=CLASS_NAMES,
        mean=mean,
        std=std,
        origin="scikit-learn",
        mask_names=MASK_NAMES,
    )


def make_scenes(number: int, count: int, digits: np.ndarray, names: np.ndarray, size: int, channels: int) -> Split:
    """Makes the first ``count`` scenes of a split.

    Args:
      number: the split: 0 is train, 1 is test.
      count: N.
      digits: images of digits, white on black, uint8 [M,8,8].
      names: which digit each of them is, int32 [M].
      size: H, the side of the images in pixels.
      channels: C.

    Returns:
      Images, uint8 [N,H,H,C], labels in [0, 4), and masks.
    """
    layout = _Layout.of(np.random.Philox(key=(SEED, 2 * number)).random_raw(count * _DRAWS).reshape(count, -1))
    grain = np.random.Philox(key=(SEED, 2 * number + 1))
    images, masks = np.full((count, size, size, channels), 255, np.uint8), np.zeros((count, size, size), np.uint8)
    colors = channels - 1 + channels % 2  # the others are alpha, which is opaque
    for index in range(count):
        canvas = _background(layout, index, size, grain)
        for k in range(layout.counts[index]):
            which = _uniform(layout.which[index, k], len(digits))
            side = max(int(layout.sides[index, k]) * size // DEFAULT_SIZE, 1)
            top, left = layout.corners[index, k] * size // DEFAULT_SIZE
            place = slice(top, top + side), slice(left, left + side)
            scaled = Image.fromarray(digits[which]).resize((side, side), Image.Resampling.BICUBIC)
            ink = np.asarray(scaled).astype(np.int32)
            canvas[place] = (canvas[place] * (255 - ink) + layout.inks[index, k] * ink + 127) // 255
            masks[index][place][ink >= 128] = names[which] + 1
        images[index, :, :, :colors] = canvas[..., None]
    labels = (layout.counts - 1).astype(np.int32)
    for array in (images, labels, masks):
        array.flags.writeable = False
    return Split(images, labels, masks)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What is in N scenes of up to K digits.

    Attributes:
      counts: how many digits there are, int64 [N].
      grays: of the background, uint8 [N,4,4].
      grain: how much the pixels of the background differ, int64 [N].
      which: random bits that choose the digits, uint64 [N,K].
      sides: of the digits, int64 [N,K].
      inks: grays of their ink, int64 [N,K].
      corners: top and left of the digits, int64 [N,K,2].
    """

    counts: np.ndarray
    grays: np.ndarray
    grain: np.ndarray
    which: np.ndarray
    sides: np.ndarray
    inks: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, bits: np.ndarray) -> "_Layout":
        """Returns the layout that random bits, uint64 [N,_DRAWS], choose."""
        scene, grays, digits = np.split(bits, (3, 3 + _GRAYS**2), axis=1)
        digits = digits.reshape(len(bits), MOST_DIGITS, -1)
        sides = _SIDES.start + _uniform(digits[..., 1], len(_SIDES))
        base = 20 + _uniform(scene[:, 1:2], 61)  # from 20 to 80
        return cls(
            counts=1 + _uniform(scene[:, 0], MOST_DIGITS),
            grays=(base + _uniform(grays, 41) - 20).astype(np.uint8).reshape(-1, _GRAYS, _GRAYS),  # from 0 to 100
            grain=np.maximum(_uniform(scene[:, 2], 61) - 30, 0),  # half of the backgrounds are smooth
            which=digits[..., 0],
            sides=sides,
            inks=150 + _uniform(digits[..., 2], 106),  # from 150 to 255
            corners=_choose_corners(sides, digits[..., 3:].reshape(len(bits), MOST_DIGITS, _POSITIONS, 2)),
        )


def _choose_corners(sides: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Chooses for each digit the position where it shares the least with those before it.

    Args:
      sides: of the digits, int64 [N,K].
      bits: random bits, uint64 [N,K,P,2].

    Returns:
      The top and the left of each digit, int64 [N,K,2].
    """
    tried = _uniform(bits, DEFAULT_SIZE + 1 - sides[..., None, None])  # [N,K,P,2]
    corners = tried[:, :, 0].copy()
    for k in range(1, MOST_DIGITS):
        start = np.maximum(tried[:, k, :, None], corners[:, None, :k])  # [N,P,k,2]
        stop = np.minimum(
            tried[:, k, :, None] + sides[:, k, None, None, None], (corners + sides[..., None])[:, None, :k]
        )
        shared = np.maximum(stop - start, 0).prod(-1)  # [N,P,k]
        smaller = np.minimum(sides[:, k, None], sides[:, :k]) ** 2  # [N,k]
        worst = (1000 * shared // smaller[:, None]).max(-1)  # [N,P]
        corners[:, k] = tried[np.arange(len(tried)), k, worst.argmin(-1)]
    return corners


def _background(layout: _Layout, index: int, size: int, bits: np.random.Philox) -> np.ndarray:
    """Returns an interpolated background with grain, int32 [size,size]. It takes the next bits of the generator."""
    smooth = Image.fromarray(layout.grays[index]).resize((size, size), Image.Resampling.BICUBIC)
    grain = bits.random_raw(-(-size * size // 8)).astype("<u8").view(np.uint8)[: size * size].reshape(size, size)
    amount = int(layout.grain[index])
    steps = (np.arange(256) * amount >> 8) - amount // 2
    return np.maximum(np.asarray(smooth) + steps.astype(np.int32)[grain], 0)


def _uniform(bits: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Turns random bits, uint64, into integers in [0, count), int64; count is below 2**31."""
    return ((bits >> np.uint64(32)).astype(np.int64) * count) >> 32
