"""Boundary F1: how well the outlines of the classes are drawn, as sums over the pixels of any number of masks.

Reference:
  Csurka et al., `What is a good evaluation measure for semantic segmentation?
  <https://doi.org/10.5244/C.27.32>`_, 2013.
"""

import dataclasses
import math

import numpy as np

from convnext_jax.data.dataset import IGNORED

TOLERANCE = 0.0075  # of the diagonal, as in the reference
_AT_ONCE = 1 << 22  # pixels, so that the intermediate arrays stay small


def boundary_tolerance(height: int, width: int) -> float:
    """Returns how far apart two boundaries may be, in pixels: 0.75% of the diagonal, and at least 1.

    >>> boundary_tolerance(32, 32), boundary_tolerance(480, 640)
    (1.0, 6.0)
    """
    return max(1.0, TOLERANCE * math.hypot(height, width))


@dataclasses.dataclass(frozen=True)
class BoundarySums:
    """Boundary pixels of each class, counted over any number of masks. The sums of two sets of masks add up.

    Attributes:
      true: boundary pixels of the truth, int64 [K].
      found: those of them that a boundary pixel of the same class in the prediction is near, int64 [K].
      predicted: boundary pixels of the prediction, int64 [K].
      right: those of them that a boundary pixel of the same class in the truth is near, int64 [K].
    """

    true: np.ndarray
    found: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    def __add__(self, other: "BoundarySums") -> "BoundarySums":
        return BoundarySums(*(one + two for one, two in zip(_counts(self), _counts(other), strict=True)))

    def f1(self) -> list[float | None]:
        """Returns the harmonic mean of precision and recall of each class.

        ``2 P R / (P + R)`` with ``P = right / predicted`` and ``R = found / true``; 0 if nothing is found, or if only
        one of the two has boundaries; None if neither has any.
        """
        return [
            None if not true + predicted else _f1(found / max(true, 1), right / max(predicted, 1))
            for true, found, predicted, right in zip(*(each.tolist() for each in _counts(self)), strict=True)
        ]


def _counts(sums: BoundarySums) -> tuple[np.ndarray, ...]:
    return sums.true, sums.found, sums.predicted, sums.right


def _f1(recall: float, precision: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_sums(
    truth: np.ndarray, predicted: np.ndarray, num_classes: int, tolerance: float | None = None
) -> BoundarySums:
    """Counts the boundary pixels of masks, and those that have a counterpart.

    A boundary pixel of a class is one with another class above, below, left or right of it. The edge of the image is no
    boundary. Ignored pixels of the truth and their eight neighbors count nowhere, in either mask. So where a band of
    ignored pixels surrounds each object, as in Pascal VOC, the truth has no boundaries.

    Args:
      truth: classes in [0, K) or `IGNORED`, uint8 [N,H,W].
      predicted: classes in [0, K), uint8 [N,H,W].
      num_classes: K.
      tolerance: the largest distance of a counterpart, between the centers of pixels; None takes `boundary_tolerance`.
    """
    height, width = truth.shape[1:]
    reach = boundary_tolerance(height, width) if tolerance is None else tolerance
    sums = BoundarySums(*np.zeros((4, num_classes), np.int64))
    step = max(_AT_ONCE // (height * width), 1)
    for start in range(0, len(truth), step):
        true, taken = (np.asarray(masks[start : start + step]) for masks in (truth, predicted))
        counted = ~_beside_ignored(true)
        true, taken = _boundaries(true, counted), _boundaries(taken, counted)
        near = [true, _near(true, taken, reach), taken, _near(taken, true, reach)]
        sums += BoundarySums(*(np.bincount(each.ravel(), minlength=256)[:num_classes] for each in near))
    return sums


def _beside_ignored(masks: np.ndarray) -> np.ndarray:
    """Returns which pixels are ignored or have an ignored one among their eight neighbors, bool [N,H,W]."""
    beside = masks == IGNORED
    if not beside.any():
        return beside
    for axis in (1, 2):  # first up and down, then that left and right
        wide = np.pad(beside, [(1, 1) if each == axis else (0, 0) for each in range(3)])
        size = masks.shape[axis]
        parts = [wide.take(range(start, start + size), axis) for start in range(3)]
        beside = parts[0] | parts[1] | parts[2]
    return beside


def _boundaries(masks: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Returns the masks with `IGNORED` wherever there is no boundary, or one that does not count, uint8 [N,H,W]."""
    edge = np.zeros(masks.shape, bool)
    across, down = masks[:, :, 1:] != masks[:, :, :-1], masks[:, 1:] != masks[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    return np.where(edge & counted, masks, np.uint8(IGNORED))


def _near(own: np.ndarray, other: np.ndarray, reach: float) -> np.ndarray:
    """Returns the boundaries of ``own`` without those that ``other`` has none of the same class near, uint8 [N,H,W]."""
    height, width = own.shape[1:]
    near = np.zeros(own.shape, bool)
    most = int(reach)
    # A class is one value of the array, so all classes are compared at once: with each place of a disk.
    for y in range(-min(most, height - 1), min(most, height - 1) + 1):
        for x in range(-min(most, width - 1), min(most, width - 1) + 1):
            if y * y + x * x <= reach * reach:
                rows, columns = _overlap(y, height), _overlap(x, width)
                other_rows, other_columns = _overlap(-y, height), _overlap(-x, width)
                near[:, rows, columns] |= own[:, rows, columns] == other[:, other_rows, other_columns]
    return np.where(near, own, np.uint8(IGNORED))


def _overlap(shift: int, size: int) -> slice:
    """Returns the places from which a step of ``shift`` stays within ``size``."""
    return slice(max(-shift, 0), size - max(shift, 0))
