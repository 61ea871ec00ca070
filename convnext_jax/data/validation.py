"""A validation split, held out of train, so that the test split is left for the final figure."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from convnext_jax.data.dataset import Dataset, PixelSums, Split
from convnext_jax.data.splitting import held_out
from convnext_jax.errors import UserError

_CHUNK = 1000  # images summed at a time: their histograms need 24 times the memory of the pixels


def hold_out_validation(dataset: Dataset, fraction: float, keys: Sequence[str]) -> Dataset:
    """Moves the same share of every class from the training split to a validation split.

    Which examples depends on the keys and the fraction alone. Both splits keep the order of the examples and are copied
    out of the cache, once. The channel statistics become those of the images that stay: nothing of the validation split
    enters the training.

    Args:
      dataset: what is split, with N training examples.
      fraction: the share, in (0, 1); see ``splitting.held_out``.
      keys: N names of the training examples that stay the same from run to run.

    Returns:
      The data set with a reduced training split, a validation split and the same test split.

    Raises:
      UserError: a class has one training example, which cannot be in both.
    """
    labels = dataset.train.labels
    alone = np.flatnonzero(np.bincount(labels, minlength=len(dataset.class_names)) == 1)
    if alone.size:
        raise UserError(
            f"config.data.validation_fraction={fraction:g}: class {dataset.class_names[alone[0]]} of {dataset.name} has"
            " one training example, and a class to be split needs two; add some or remove the class"
        )
    held = np.array(held_out(keys, labels.tolist(), fraction))
    train = _take(dataset.train, ~held)
    sums = PixelSums()
    for start in range(0, len(train), _CHUNK):
        sums += PixelSums.of(train.images[start : start + _CHUNK])
    mean, std = sums.mean_and_std()
    return dataclasses.replace(dataset, train=train, validation=_take(dataset.train, held), mean=mean, std=std)


def _take(split: Split, chosen: np.ndarray) -> Split:
    images, labels = split.images[chosen], split.labels[chosen]
    images.flags.writeable = False
    labels.flags.writeable = False
    return Split(images, labels)
