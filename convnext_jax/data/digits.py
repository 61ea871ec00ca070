"""The handwritten digits that are part of scikit-learn: 1,797 real images of 8x8 pixels, without a download."""

from importlib import metadata

import numpy as np
from PIL import Image

from convnext_jax.data.dataset import Dataset, PixelSums, Split
from convnext_jax.data.decode import MODES
from convnext_jax.data.splitting import held_out
from convnext_jax.errors import UserError

TEST_FRACTION = 0.2
DEFAULT_SIZE = 32


def load_digits(image_size: int | None = None, channels: int = 3) -> Dataset:
    """Loads the digits. A fixed, stratified fifth of them is the test split.

    Args:
      image_size: side of the square images in pixels; None is 32.
      channels: number of channels, 1 to 4; see `convnext_jax.data.decode.decode_picture`. The images are always gray.

    Returns:
      The data set, with 1,438 training and 359 test images.

    Raises:
      UserError: scikit-learn is not installed.
    """
    digits, labels, test = read_digits("digits")
    images = _scale(digits, image_size or DEFAULT_SIZE, channels)
    mean, std = PixelSums.of(images[~test]).mean_and_std()
    return Dataset(
        name="digits",
        train=_split(images[~test], labels[~test]),
        test=_split(images[test], labels[test]),
        class_names=tuple("0123456789"),
        mean=mean,
        std=std,
        origin="scikit-learn",
    )


def read_digits(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads the digits from scikit-learn.

    Args:
      name: the data set that they are for, for error messages.

    Returns:
      The images, white on black, uint8 [1797,8,8], the digits, int32 [1797], and whether each is in the test split.

    Raises:
      UserError: scikit-learn is not installed.
    """
    try:
        package = metadata.distribution("scikit-learn")
    except metadata.PackageNotFoundError as error:
        raise UserError(f"data set {name}: scikit-learn is not installed; run `pip install scikit-learn`") from error
    # Reads the same file as sklearn.datasets.load_digits, but importing scikit-learn would take a second.
    table = np.loadtxt(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")), delimiter=",")
    images = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1].astype(np.int32)
    test = np.array(held_out([str(i) for i in range(len(labels))], labels.tolist(), TEST_FRACTION))
    return images, labels, test


def _scale(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Converts the digits: uint8 [N,8,8] -> uint8 [N,size,size,channels]."""
    scaled = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
    converted = [np.asarray(image.convert(MODES[channels])) for image in scaled]
    return np.stack(converted).reshape(-1, size, size, channels)


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)
