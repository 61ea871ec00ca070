"""Held-out examples: a fixed, stratified choice, which is the same on every machine and in every version."""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from convnext_jax.data.dataset import Dataset, Images, PixelSums, Split
from convnext_jax.errors import UserError

_CHUNK = 1000  # images to sum at once: computing their histograms takes 24 times the memory of their pixels


def held_out(keys: Sequence[str], classes: Sequence[Hashable], fraction: float) -> list[bool]:
    """Chooses examples to hold out, the same share of each class.

    The examples of a class are sorted by the hashes of their keys, and the first ones are held out. There is no random
    generator, so the choice depends only on the arguments.

    >>> held_out(["a", "b", "c", "d", "e"], classes=[0, 0, 1, 1, 2], fraction=0.5)
    [False, True, False, True, False]

    Args:
      keys: a name for each example that is the same in every run.
      classes: the class of each example.
      fraction: the share to hold out, in (0, 1). If a class has two or more examples, at least one of them is held out
        and at least one is kept. If it has only one, it is kept.

    Returns:
      For each example, whether it is held out.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(classes):
        members[label].append(index)
    chosen = [False] * len(keys)
    for indices in members.values():
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        ranked = sorted(indices, key=lambda i: (_digest(keys[i]), keys[i]))
        for index in ranked[:count]:
            chosen[index] = True
    return chosen


def _digest(key: str) -> bytes:
    # A file name may contain bytes that are not UTF-8.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def hold_out_validation(dataset: Dataset, fraction: float, keys: Sequence[str]) -> Dataset:
    """Moves the same share of each class from the training split to a new validation split.

    `held_out` chooses the examples. Both splits are copied to memory and keep the order of the examples. The channel
    statistics are computed again from the examples that remain in the training split, so that training uses nothing of
    the validation split.

    Args:
      dataset: the data set to split, with N training examples.
      fraction: the share to move, in (0, 1); see `held_out`.
      keys: names of the N training examples that are the same in every run.

    Returns:
      The data set with a smaller training split, a validation split and the same test split.

    Raises:
      UserError: a class has only one training example, which cannot be in both splits.
    """
    labels = dataset.train.labels
    alone = np.flatnonzero(np.bincount(labels, minlength=len(dataset.class_names)) == 1)
    if alone.size:
        named = bool(dataset.class_names)
        raise UserError(
            f"config.data.validation_fraction={fraction:g}:"
            f" {f'class {dataset.class_names[alone[0]]} of ' if named else ''}{dataset.name} has one training example,"
            f" and it takes two to hold one out; add some{' or remove the class' if named else ''}"
        )
    held = np.array(held_out(keys, labels.tolist(), fraction))
    train = _take(dataset.train, ~held)
    mean, std = sum_pixels(train.images).mean_and_std()
    return dataclasses.replace(dataset, train=train, validation=_take(dataset.train, held), mean=mean, std=std)


def sum_pixels(images: Images) -> PixelSums:
    """Returns the sums over many images, uint8 [N,H,W,C], in little memory."""
    return sum((PixelSums.of(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)), PixelSums())


def _take(split: Split, chosen: np.ndarray) -> Split:
    taken = Split(split.images[chosen], split.labels[chosen], None if split.masks is None else split.masks[chosen])
    for array in (taken.images, taken.labels, taken.masks):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return taken
