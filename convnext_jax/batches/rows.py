"""Which examples a process needs of the batch of a step, and their pixels as rows of bytes."""

import dataclasses
from typing import Protocol

import numpy as np

from convnext_jax.batches.order import host_order
from convnext_jax.data.dataset import Images
from convnext_jax.data.decoding_processes import DecodingProcesses
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.random_crop import RandomCrop


@dataclasses.dataclass(frozen=True)
class Rows:
    """The part of every batch that is one process's own.

    Attributes:
      seed: of the run.
      num_examples: N.
      batch_size: B, over all devices together.
      positions: which rows of a batch are read, each in [0, B).
    """

    seed: int
    num_examples: int
    batch_size: int
    positions: tuple[int, ...]

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of a step, counted from the start of the run, int32 [positions]."""
        epoch, position = divmod(step, self.num_examples // self.batch_size)
        order = host_order(self.seed, epoch, self.num_examples)
        return order[position * self.batch_size + np.asarray(self.positions)]


class RowReader(Protocol):
    """Reads rows of a split."""

    def read(self, epoch: int, indices: np.ndarray, out: np.ndarray) -> None:
        """Writes the pixels that the examples [S,B] have in an epoch into ``out``, uint8 [S,B,H W C].

        It raises what a source's ``feed`` does.
        """
        ...

    def close(self) -> None:
        """Ends what reads."""
        ...


class ArrayReader:
    """Rows of decoded pixels, in memory or mapped into it: nothing to do but to copy them.

    Args:
      images: uint8 [N,H,W,C].
    """

    def __init__(self, images: np.ndarray) -> None:
        self._pixels = images.reshape(len(images), -1)

    def read(self, epoch: int, indices: np.ndarray, out: np.ndarray) -> None:
        """See `RowReader.read`. The pixels are the same in every epoch."""
        del epoch
        # All are in range by construction. With another mode NumPy would copy the rows twice.
        np.take(self._pixels, indices, axis=0, out=out, mode="clip")

    def close(self) -> None:
        """See `RowReader.close`."""


def reader_of(images: Images, workers: int | None, crop: RandomCrop | None) -> RowReader:
    """Returns what reads the rows of a split.

    Args:
      images: of the split.
      workers: processes that decode, if the images are encoded; None is one for each core.
      crop: draws a rectangle of each encoded image; None takes them whole.
    """
    return DecodingProcesses(images, workers, crop) if isinstance(images, EncodedImages) else ArrayReader(images)
