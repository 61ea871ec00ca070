"""What every source of images is turned into: splits of uint8 arrays, class names, channel statistics."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split, in a fixed order.

    Attributes:
      images: uint8 [N, H, W, 3], read-only; memory-mapped where it comes from a cache.
      labels: int32 [N], read-only, in [0, number of classes).
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set for image classification, ready for use.

    Attributes:
      name: the name that it was asked for by.
      train: the examples to train on.
      test: the examples to test on; the validation split where the data set has no labelled test split.
      class_names: one name a class, at the place of its label.
      mean: float32 [3], channel means of the train images scaled to [0, 1].
      std: float32 [3], channel standard deviations of the train images scaled to [0, 1].
      validation: examples held out of train to tune on, None where none are.
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
        """Name and examples of the split that a training evaluates: ``validation`` if there is one, else ``test``."""
        return ("test", self.test) if self.validation is None else ("validation", self.validation)


@dataclasses.dataclass(frozen=True)
class PixelSums:
    """Exact sums over the pixels of any number of images, the same however the images are grouped.

    Attributes:
      pixels: the number of pixels summed.
      total: three integers, the sum of each channel.
      squares: three integers, the sum of each channel's squares.
    """

    pixels: int = 0
    total: tuple[int, ...] = (0, 0, 0)
    squares: tuple[int, ...] = (0, 0, 0)

    @classmethod
    def of(cls, images: np.ndarray) -> "PixelSums":
        """Sums over ``images``, uint8 [..., 3]."""
        channels = images.reshape(-1, 3)  # [pixels, 3]
        # The histogram of a channel gives both sums exactly, without a wider copy of the images.
        counts = [np.bincount(channels[:, c], minlength=256) for c in range(3)]
        values = np.arange(256, dtype=np.int64)
        return cls(
            len(channels),
            tuple(int(count @ values) for count in counts),
            tuple(int(count @ values**2) for count in counts),
        )

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(
            self.pixels + other.pixels,
            tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    def mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        """Channel means and standard deviations on the scale [0, 1], each float32 [3]."""
        mean = np.array([s / self.pixels for s in self.total], np.float64)
        # n * sum(x^2) - sum(x)^2 in whole numbers: nothing cancels.
        variance = [(self.pixels * q - s * s) / self.pixels**2 for s, q in zip(self.total, self.squares, strict=True)]
        return (mean / 255).astype(np.float32), (np.sqrt(variance) / 255).astype(np.float32)
