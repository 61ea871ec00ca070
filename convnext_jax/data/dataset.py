"""The form that all data sets are loaded into: splits of uint8 arrays, class names and channel statistics."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split, in a fixed order.

    Attributes:
      images: uint8 [N,H,W,C], C from 1 to 4, read-only, memory-mapped if it comes from a cache.
      labels: int32 [N] in [0, number of classes), read-only.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set for image classification, ready for use.

    Attributes:
      name: the name that it was requested by.
      train: the examples to train on.
      test: the examples to test on. This is the validation split if the data set has no labeled test split.
      class_names: one name for each class, in the order of the labels.
      mean: channel means of the training images, on the scale [0, 1], float32 [C].
      std: channel standard deviations of the training images, on the scale [0, 1], float32 [C].
      validation: examples held out of the training split to tune on; None if no examples are held out.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    validation: Split | None = None

    @property
    def evaluated(self) -> tuple[str, Split]:
        """The split that a training run evaluates, with its name: ``validation`` if there is one, else ``test``."""
        return ("test", self.test) if self.validation is None else ("validation", self.validation)


@dataclasses.dataclass(frozen=True)
class PixelSums:
    """Exact sums over the pixels of any number of images. They do not depend on how the images are grouped.

    >>> images = np.array([[[0, 100]], [[10, 200]]], np.uint8)
    >>> PixelSums.of(images)
    PixelSums(pixels=2, total=(10, 300), squares=(100, 50000))
    >>> PixelSums.of(images[:1]) + PixelSums.of(images[1:]) == PixelSums.of(images)
    True

    Attributes:
      pixels: the number of pixels.
      total: for each channel the sum of its values.
      squares: for each channel the sum of the squares of its values.
    """

    pixels: int = 0
    total: tuple[int, ...] = ()
    squares: tuple[int, ...] = ()

    @classmethod
    def of(cls, images: np.ndarray) -> "PixelSums":
        """Returns the sums over images, uint8 [...,C]."""
        channels = images.reshape(-1, images.shape[-1])  # [pixels,C]
        # The histogram of a channel gives both sums exactly and needs no copy of the images in a wider dtype.
        counts = [np.bincount(channels[:, c], minlength=256) for c in range(channels.shape[1])]
        values = np.arange(256, dtype=np.int64)
        return cls(
            len(channels),
            tuple(int(count @ values) for count in counts),
            tuple(int(count @ values**2) for count in counts),
        )

    def __add__(self, other: "PixelSums") -> "PixelSums":
        if not self.pixels:
            return other
        return PixelSums(
            self.pixels + other.pixels,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the channel means and standard deviations on the scale [0, 1], float32 [C] each.

        A channel with one value everywhere (an opaque alpha channel) has a standard deviation of 1, so that dividing by
        it is safe.
        """
        mean = np.array([s / self.pixels for s in self.total], np.float64)
        # n * sum(x^2) - sum(x)^2 is computed with integers, so there is no cancellation error.
        variance = [(self.pixels * q - s * s) / self.pixels**2 for s, q in zip(self.total, self.squares, strict=True)]
        std = np.where(np.equal(variance, 0), 1, np.sqrt(variance) / 255)
        return (mean / 255).astype(np.float32), std.astype(np.float32)
