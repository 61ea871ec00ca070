"""What a trained network that is given pictures has in common, whatever it says of them."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from convnext_jax.errors import UserError, check
from convnext_jax.evaluate.predictions import Forward, Predictor
from convnext_jax.evaluate.preprocessing import AnyPicture, Preprocessing
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.models.parameters import Tree
from convnext_jax.workdir.claim import read_one_seed

BATCH_SIZE = 32  # of every batch, so that each program compiles once, whatever the number of pictures
Pictures = np.ndarray | jax.Array | AnyPicture | Sequence[AnyPicture] | Sequence[np.ndarray]


class TrainedNetwork:
    """A trained network, with its preprocessing.

    Args:
      forward: how pixels become outputs.
      params: the parameters, on the devices.
      batch_stats: the running statistics, empty if there are none.
      preprocess: how a picture becomes pixels.
      batch_size: images at a time, rounded up to a multiple of the devices; it changes no figure.
    """

    def __init__(
        self, forward: Forward, params: Tree, batch_stats: Tree, *, preprocess: Preprocessing, batch_size: int
    ) -> None:
        check("batch_size", batch_size, batch_size >= 1, "1 or more")
        self.preprocess = preprocess
        self.batch_size = forward.sharding.rounded_up(batch_size)
        self._forward = forward
        self._state = params, batch_stats
        self._outputs = Predictor(forward, self.batch_size)

    def _checked(self, images: Pictures) -> np.ndarray | Sequence[AnyPicture]:
        if isinstance(images, str | PathLike | Image.Image):
            return [images]
        if len(images) == 0:
            raise UserError("no images are given")
        images = _as_array(images)
        shape = self.preprocess.shape
        if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.shape[1:] != shape):
            raise UserError(
                f"images of {images.dtype} {list(images.shape)} are given, and the network takes uint8"
                f" [N,{','.join(map(str, shape))}]; give Pillow images or paths to have them resized"
            )
        return images

    def _batches(self, images: np.ndarray | Sequence[AnyPicture]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields batches of pixels, each with the number of its first image."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            yield start, batch if isinstance(batch, np.ndarray) else np.stack([self.preprocess(each) for each in batch])

    def _run(self, predictor: Predictor, batch: np.ndarray) -> Any:
        """Returns the outputs for a batch of at most `batch_size` images."""
        outputs = predictor(*self._state, padded(batch, self.batch_size))
        return jax.tree.map(lambda array: array[: len(batch)], outputs)


def _as_array(images: Any) -> np.ndarray | Sequence[AnyPicture]:
    """Returns pixels as one array, and anything else as it is."""
    if isinstance(images, jax.Array):
        return np.asarray(images)
    if isinstance(images, np.ndarray) or not all(isinstance(each, np.ndarray | jax.Array) for each in images):
        return images
    if len({each.shape for each in images}) > 1:
        raise UserError("images of several sizes are given; give Pillow images or paths to have them resized")
    return np.stack(images)


def padded(batch: np.ndarray, size: int) -> np.ndarray:
    """Returns a batch filled up to a size with its last entry."""
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1), mode="edge")


def check_weights_name(weights: str, image_size: int | None) -> None:
    """Raises UserError unless the weights are ``raw`` or ``ema``, and the size of the images 1 or more, or None."""
    check("weights", weights, weights in ("raw", "ema"), "raw or ema")
    check("image_size", image_size, image_size is None or image_size >= 1, "1 or more")


def open_one_seed(directory: Path, dtype: str | None = None) -> SavedRun:
    """Opens a workdir of one seed, wherever its data are.

    Args:
      directory: the workdir.
      dtype: what the network computes in; None is what the config says.

    Raises:
      UserError: no workdir with checkpoints, or one of several seeds.
    """
    read_one_seed(directory)
    return SavedRun.open(directory, data_dir=None, dtype=dtype)
