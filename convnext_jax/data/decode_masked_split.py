"""Decodes the pictures of a split with their masks, as `convnext_jax.data.decode_split` does without."""

import functools
from pathlib import Path

import numpy as np

from convnext_jax.data.dataset import PixelSums
from convnext_jax.data.decode import check_shape
from convnext_jax.data.decode_mask import decode_pair
from convnext_jax.data.decode_split import CHUNK, Chunk, Source, allocate, collect


def decode_masked_split(
    source: Source, images: Path, masks: Path, size: int | None, channels: int, title: str
) -> Chunk:
    """Decodes a split into two .npy files: its images, uint8 [N,H,W,C], and the values of its masks, uint8 [N,H,W].

    Args:
      source: the encoded pictures, at least one, each with a mask.
      images: the file to write the images to.
      masks: the file to write the masks to.
      size: see `convnext_jax.data.decode.decode_picture`. If None, all pictures must have the same size.
      channels: C, see `convnext_jax.data.decode.decode_picture`.
      title: title of the progress bar.

    Returns:
      The labels, the sums over all pixels of the images, and the values that are in the masks.

    Raises:
      UserError: see `convnext_jax.data.decode_mask.decode_pair`, a picture differs in size from the first one, or the
        disk is too full.
    """
    count = len(source)
    first = decode_pair(next(source.read(0, 1)), size, channels)
    allocate({images: (count, *first.image.shape), masks: (count, *first.mask.shape)}, title)
    return collect(functools.partial(_decode_chunk, source, images, masks, size), count, title)


def _decode_chunk(source: Source, images: Path, masks: Path, size: int | None, start: int) -> Chunk:
    """Decodes up to `CHUNK` pictures, beginning with ``start``, into their positions in the files."""
    pixels, values = (np.lib.format.open_memmap(path, mode="r+") for path in (images, masks))
    stop = min(start + CHUNK, len(pixels))
    labels = np.empty(stop - start, np.int32)
    uses: dict[int, int] = {}
    for index, picture in enumerate(source.read(start, stop), start):
        pair = decode_pair(picture, size, pixels.shape[-1])
        check_shape(picture, pair.image, pixels.shape[1:])
        pixels[index], values[index], labels[index - start] = pair.image, pair.mask, picture.label
        for value in pair.used:
            uses.setdefault(value, index)
    return Chunk(start, labels, PixelSums.of(pixels[start:stop]), uses)
