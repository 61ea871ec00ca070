"""The classes of masks: which class number each value of a mask is."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from convnext_jax.data.dataset import IGNORED
from convnext_jax.data.decode_mask import WHITE
from convnext_jax.errors import UserError

Uses = Mapping[int, int]  # for each value in the masks of a split, the first picture whose mask has it


@dataclasses.dataclass(frozen=True)
class MaskClasses:
    """What is known of the classes of masks before they are decoded.

    Attributes:
      names: one for each class. If there are none, the masks of the training split show how many classes there are.
      lowest: the value of the first class.
      remedy: what a user can do about a value that is no class.
    """

    names: tuple[str, ...] = ()
    lowest: int = 0
    remedy: str = "correct the mask"

    def table(self, uses: Mapping[str, Uses], name_of: Callable[[str, int], str]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns the class number of each value, and the names of the classes.

        If all masks are black and white (0 and 255), white is class 1. Otherwise 255 is a pixel without a class.

        Args:
          uses: the values of each split, ``train`` among them.
          name_of: returns the name of a mask, given the split and the number of its picture.

        Returns:
          The class numbers, uint8 [256], and a name for each class.

        Raises:
          UserError: a value is no class, masks with class numbers and black and white ones are mixed, or there is only
            one class.
        """
        every = {value for split in uses.values() for value in split}
        numbers = {value: value - self.lowest for value in range(255)} | {255: IGNORED}
        if self.lowest == 0 and every <= {0, 255, WHITE}:
            numbers |= {255: 1, WHITE: 1}
        for split, values in uses.items():
            if WHITE in values and WHITE not in numbers:
                raise UserError(
                    f"mask {name_of(split, values[WHITE])} is black and white, and others have class numbers: save all"
                    " with class numbers"
                )
        seen = [numbers[value] for value in uses["train"] if numbers[value] != IGNORED]
        names = self.names or tuple(map(str, range(max(seen, default=-1) + 1)))
        for split, values in uses.items():
            for value in sorted(values):
                if numbers[value] != IGNORED and not 0 <= numbers[value] < len(names):
                    raise self._no_class(name_of(split, values[value]), value, len(names))
        if len(names) < 2:
            raise UserError(f"the masks have {len(names)} class(es), and segmentation needs two or more: correct them")
        return np.array([numbers[value] % 256 for value in range(256)], np.uint8), names

    def _no_class(self, mask: str, value: int, count: int) -> UserError:
        source = "the classes are" if self.names else "the training masks have"
        return UserError(
            f"mask {mask} has the value {min(value, 255)}, and {source} {self.lowest} to {self.lowest + count - 1} (255"
            f" is ignored): {self.remedy}"
        )


# The masks of TFDS whose classes have names. Those of others have numbers.
_KNOWN = {"oxford_iiit_pet": MaskClasses(("pet", "background", "border"), lowest=1)}


def tfds_mask_classes(name: str) -> MaskClasses:
    """Returns what is known of the classes of the masks of a TFDS data set."""
    return _KNOWN.get(name, MaskClasses())
