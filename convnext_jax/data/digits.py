"""The handwritten digits that ship in scikit-learn: 1,797 real images of 8x8 pixels, no download."""

from typing import Any

import numpy as np
from PIL import Image

from convnext_jax.data.dataset import Dataset, PixelSums, Split
from convnext_jax.data.splitting import held_out
from convnext_jax.errors import UserError

TEST_FRACTION = 0.2
DEFAULT_SIZE = 32


def load_digits(image_size: int | None = None) -> Dataset:
    """Loads the digits, a fixed stratified fifth of them as the test split.

    Args:
      image_size: the side of the square images; 32 where None.

    Returns:
      The data set: 1,438 train and 359 test images, uint8 RGB.

    Raises:
      UserError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import (
            load_digits as load_bunch,
        )  # slow to import, and needed by this data set alone
    except ImportError as error:
        raise UserError("data set digits: scikit-learn is not installed; run `pip install scikit-learn`") from error
    bunch: Any = load_bunch()
    labels = bunch.target.astype(np.int32)
    images = _scale(bunch.images, image_size or DEFAULT_SIZE)
    test = np.array(held_out([str(i) for i in range(len(labels))], labels.tolist(), TEST_FRACTION))
    mean, std = PixelSums.of(images[~test]).mean_and_std()
    return Dataset(
        name="digits",
        train=_split(images[~test], labels[~test]),
        test=_split(images[test], labels[test]),
        class_names=tuple(str(name) for name in bunch.target_names),
        mean=mean,
        std=std,
    )


def _scale(images: np.ndarray, size: int) -> np.ndarray:
    """float [N, 8, 8] with values 0 to 16 -> uint8 [N, size, size, 3]."""
    grey = np.round(images * (255 / 16)).astype(np.uint8)
    scaled = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in grey]
    return np.stack([np.asarray(image.convert("RGB")) for image in scaled])


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)
