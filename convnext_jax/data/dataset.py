"""The form that all data sets are loaded into: splits of uint8 arrays, class names and channel statistics."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from convnext_jax.data.encoded_images import EncodedImages

Images = np.ndarray | EncodedImages
IGNORED = 255  # in a mask: the class of this pixel is not known
_MOST_REASONS = 6


@dataclasses.dataclass(frozen=True)
class Split:
    """The examples of one split, in a fixed order.

    Attributes:
      images: uint8 [N,H,W,C], C from 1 to 4, read-only, memory-mapped if it comes from a cache; or pictures that stay
        encoded and are decoded when they are asked for.
      labels: int32 [N] in [0, number of classes), read-only; all 0 if the images have no classes.
      masks: the class of each pixel, uint8 [N,H,W], `IGNORED` where it is not known; read-only, memory-mapped if it
        comes from a cache. None if there are no masks.
    """

    images: Images
    labels: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set for image classification, segmentation or both, ready for use.

    Attributes:
      name: the name that it was requested by.
      train: the examples to train on.
      test: the examples to test on. This is the validation split if the data set has no labeled test split.
      class_names: one name for each class, in the order of the labels; none if the images have no classes.
      mean: channel means of the training images, on the scale [0, 1], float32 [C].
      std: channel standard deviations of the training images, on the scale [0, 1], float32 [C].
      validation: examples held out of the training split to tune on; None if no examples are held out.
      origin: where it lies: its folder, or the package that it is part of.
      left_out: how many files in the folder are not used, by reason.
      mask_names: one name for each class of the masks; none if there are no masks.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    validation: Split | None = None
    origin: str = ""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    mask_names: tuple[str, ...] = ()

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: ``train``, ``validation`` if there is one, and ``test``."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def evaluated(self) -> tuple[str, Split]:
        """The split that a training run evaluates, with its name: ``validation`` if there is one, else ``test``."""
        return ("test", self.test) if self.validation is None else ("validation", self.validation)

    def without_masks(self) -> "Dataset":
        """Returns the data set without its masks."""
        splits = {name: dataclasses.replace(split, masks=None) for name, split in self.splits.items()}
        return dataclasses.replace(self, **splits, mask_names=())

    def describe(self) -> str:
        """Returns in a line what the data set holds, where it lies, and what was left out."""
        place = f" in {self.origin}" if self.origin else ""
        train, *others = (f"{name} {len(split):,}" for name, split in self.splits.items())
        counts = ", ".join([f"{train} pictures", *others])
        classes = [f"{len(self.class_names):,} classes"] if self.class_names else []
        masks = [f"masks of {len(self.mask_names):,} classes"] if self.mask_names else []
        shape = "x".join(map(str, self.train.images.shape[1:]))
        unused = sum(self.left_out.values())
        left_out = f"; left out {unused:,} file{'s' * (unused != 1)} ({by_reason(self.left_out)})" if unused else ""
        return f"data: {self.name}{place}: {', '.join([counts, *classes, *masks, shape])}{left_out}"


def by_reason(left_out: Mapping[str, int]) -> str:
    """Returns how many files were left out for each reason, in words; the rare ones together.

    >>> by_reason({".txt": 9, "hidden": 1500})
    '1,500 hidden, 9 .txt'
    """
    ranked = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    if len(ranked) > _MOST_REASONS:
        rest = sum(count for _, count in ranked[_MOST_REASONS - 1 :])
        ranked = [*ranked[: _MOST_REASONS - 1], ("of other kinds", rest)]
    return ", ".join(f"{count:,} {reason}" for reason, count in ranked)


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
