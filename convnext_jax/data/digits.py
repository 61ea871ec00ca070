"""The handwritten digits that ship in scikit-learn: 1,797 real images of 8x8 pixels, no download."""

from importlib import metadata

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
        package = metadata.distribution("scikit-learn")
    except metadata.PackageNotFoundError as error:
        raise UserError("data set digits: scikit-learn is not installed; run `pip install scikit-learn`") from error
    # Read as sklearn.datasets.load_digits reads it, without a second for the import of scikit-learn.
    table = np.loadtxt(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")), delimiter=",")
    labels = table[:, -1].astype(np.int32)
    images = _scale(table[:, :-1].reshape(-1, 8, 8), image_size or DEFAULT_SIZE)
    test = np.array(held_out([str(i) for i in range(len(labels))], labels.tolist(), TEST_FRACTION))
    mean, std = PixelSums.of(images[~test]).mean_and_std()
    return Dataset(
        name="digits",
        train=_split(images[~test], labels[~test]),
        test=_split(images[test], labels[test]),
        class_names=tuple("0123456789"),
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
