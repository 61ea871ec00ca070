"""Pictures that stay encoded in their files, and look like an array of pixels."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from convnext_jax.data.decode import Picture, decode_crop, decode_to_shape
from convnext_jax.data.random_crop import RandomCrop


class RandomAccess(Protocol):
    """Encoded pictures in any order, such as a `convnext_jax.data.prepared.RecordSource`. It can be pickled."""

    def __len__(self) -> int:
        """Returns the number of pictures."""
        ...

    def read_at(self, indices: Sequence[int]) -> Iterator[Picture]:
        """Yields the pictures at the indices."""
        ...


@dataclasses.dataclass(frozen=True)
class EncodedImages:
    """The pictures of a split, decoded when they are asked for; stands for an array, uint8 [N,H,W,C].

    Attributes:
      source: the pictures.
      image_shape: (H, W, C).
      image_size: see `convnext_jax.data.decode.decode_picture`.
    """

    source: RandomAccess
    image_shape: tuple[int, int, int]
    image_size: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        return (len(self.source), *self.image_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        """Returns some of the pictures, as an array would.

        Args:
          which: an index, a range of them, or an array of them, each in [0, N).

        Raises:
          UserError: a picture cannot be read, or is not of the size (H, W).
        """
        if isinstance(which, slice):
            return self._decode(range(len(self))[which], self._whole)
        if np.ndim(which) == 0:
            return self._decode([range(len(self))[int(which)]], self._whole)[0]
        return self._decode(np.asarray(which).tolist(), self._whole)

    def crops(self, indices: Sequence[int], crop: RandomCrop, epoch: int) -> np.ndarray:
        """Returns a random rectangle of each of some pictures, resized to (H, W).

        Args:
          indices: which pictures, each in [0, N).
          crop: draws the rectangles.
          epoch: that they are drawn for.

        Raises:
          UserError: a picture cannot be read.
        """
        size, _, channels = self.image_shape

        def decode(index: int, picture: Picture) -> np.ndarray:
            return decode_crop(picture, functools.partial(crop.box, epoch, index), size, channels)

        return self._decode(indices, decode)

    def _whole(self, index: int, picture: Picture) -> np.ndarray:
        del index
        return decode_to_shape(picture, self.image_shape, self.image_size)

    def _decode(self, indices: Sequence[int], decode: Callable[[int, Picture], np.ndarray]) -> np.ndarray:
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        pictures = self.source.read_at(indices) if indices else ()
        for number, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
            images[number] = decode(index, picture)
        return images
