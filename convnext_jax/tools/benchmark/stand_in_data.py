"""Data sets that stand in for real ones of the same size: shapes without memory, and noise."""

import numpy as np

from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.data.registry import Extent


def shapes_as_dataset(extent: Extent, validation_fraction: float = 0.0) -> Dataset:
    """Returns a data set of a size whose arrays take no memory. Of the examples that are tested on it has one."""
    count = round((extent.train_examples or 0) * (1 - validation_fraction))

    def split(count: int) -> Split:
        shape = (count, extent.height, extent.width, extent.channels)
        masks = np.broadcast_to(np.uint8(0), shape[:3]) if extent.mask_classes else None
        return Split(np.broadcast_to(np.uint8(0), shape), np.broadcast_to(np.int32(0), shape[:1]), masks)

    return _dataset("shapes", split(count), split(1), extent)


def noise_as_dataset(extent: Extent, count: int) -> Dataset:
    """Returns a data set of so many examples of noise, which are both trained and tested on."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, extent.height, extent.width, extent.channels), np.uint8)
    labels = np.arange(count, dtype=np.int32) % max(extent.num_classes, 1)
    masks = rng.integers(0, extent.mask_classes, images.shape[:3], np.uint8) if extent.mask_classes else None
    split = Split(images, labels, masks)
    return _dataset("noise", split, split, extent)


def _dataset(name: str, train: Split, test: Split, extent: Extent) -> Dataset:
    mean, std = np.full(extent.channels, 0.5, np.float32), np.full(extent.channels, 0.25, np.float32)
    names, mask_names = (tuple(map(str, range(count))) for count in (extent.num_classes, extent.mask_classes))
    return Dataset(name, train, test, names, mean, std, mask_names=mask_names)
