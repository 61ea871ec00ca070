"""Decodes pictures into one uint8 array on disk, on all cores."""

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import types
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from convnext_jax.data.dataset import PixelSums
from convnext_jax.errors import UserError, first_line

CHUNK = 500  # pictures per task: enough to hide the overhead of a task, few enough for a smooth progress bar
SERIAL_BELOW = 4000  # fewer pictures than this are decoded before a pool of processes has started


class Picture(NamedTuple):
    """An encoded picture.

    Attributes:
      name: what error messages call it.
      encoded: the bytes of the file.
      label: the label.
    """

    name: str
    encoded: bytes
    label: int


class Source(Protocol):
    """The encoded pictures of a split. Sources are pickled and sent to the processes that decode."""

    def __len__(self) -> int:
        """Returns the number of pictures."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Yields the pictures start, start + 1, ..., stop - 1."""
        ...


MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # Pillow's mode for each number of channels
# What Pillow reads without running another program, as it does for PostScript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM")
MOST_PIXELS = 1 << 26  # of a picture, 8192x8192; more than any camera's, and 268 MB at four channels
MOST_BYTES = 1 << 28  # of a file, those of the largest picture without compression


def decode_picture(picture: Picture, size: int | None = None, channels: int = 3) -> np.ndarray:
    """Decodes a picture.

    Args:
      picture: a JPEG, PNG, WebP, GIF, BMP or PPM of at most 8192x8192 pixels.
      size: side of the decoded picture in pixels. The shorter side is resized to it, with antialiasing, and the center
        square is cropped. If None, the picture keeps its size.
      channels: C, the number of channels that the picture is converted to. 1 is grayscale, 2 is grayscale and alpha, 3
        is RGB, and 4 is RGB and alpha.

    Returns:
      uint8 [H,W,C].

    Raises:
      UserError: the picture cannot be read, or is of absurd size, which is found before memory is allocated for it.
    """
    if not picture.encoded:
        raise UserError(f"picture {picture.name} is empty (0 bytes): replace or remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what does no harm, such as corrupt EXIF
            with Image.open(io.BytesIO(picture.encoded), formats=_FORMATS) as opened:
                _check_size(picture, opened.size)
                opened.load()  # raises an error if the file is truncated
                image = opened if opened.mode == MODES[channels] else opened.convert(MODES[channels])
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of any kind
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise UserError(f"picture {picture.name} cannot be read ({reason}): replace or remove it") from error
    if size is not None and image.size != (size, size):
        image = _resize_and_crop(picture, image, size)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _resize_and_crop(picture: Picture, image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    _check_size(picture, (width, height))  # a line of pixels becomes as broad as it is long
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _check_size(picture: Picture, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise UserError(
            f"picture {picture.name} would have {width}x{height} pixels, and at most {MOST_PIXELS:,} make sense:"
            " replace or remove it"
        )


def decode_split(
    source: Source, path: Path, size: int | None, channels: int, title: str
) -> tuple[np.ndarray, PixelSums]:
    """Decodes a split into a .npy file, uint8 [N,H,W,C].

    Args:
      source: the encoded pictures, at least one.
      path: the file to write.
      size: see `decode_picture`. If None, all pictures must have the same size.
      channels: C, see `decode_picture`.
      title: title of the progress bar.

    Returns:
      The labels, int32 [N], and the sums over all pixels.

    Raises:
      UserError: a picture cannot be read, a picture differs in size from the first one, or the disk is too full.
    """
    count = len(source)
    first = decode_picture(next(source.read(0, 1)), size, channels)
    needed, free = count * first.nbytes, shutil.disk_usage(path.parent).free
    if free < needed:  # checked now because writing to a mapped file on a full disk kills the process silently
        raise UserError(f"{title} needs {needed:,} bytes in {path.parent}, and {free:,} are free: make room there")
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *first.shape))
    del images  # each process opens the file again
    labels = np.empty(count, np.int32)
    sums = PixelSums()
    starts = range(0, count, CHUNK)
    with tqdm(total=count, desc=title, unit=" images", disable=None) as bar:
        for start, chunk_labels, chunk_sums in _run_chunks(source, path, size, starts):
            labels[start : start + len(chunk_labels)] = chunk_labels
            sums += chunk_sums
            bar.update(len(chunk_labels))
    return labels, sums


Chunk = tuple[int, np.ndarray, PixelSums]


def _run_chunks(source: Source, path: Path, size: int | None, starts: range) -> Iterator[Chunk]:
    """Decodes the chunks that begin at ``starts``, in any order, and yields the result of each one."""
    workers = min(_cpu_count(), len(starts))
    done: set[int] = set()
    if workers > 1 and len(source) >= SERIAL_BELOW:
        # Processes, not threads: for small pictures the interpreter lock costs more than the decoding. Spawned, not
        # forked: a fork of a process with JAX's threads may hang.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            try:
                with _without_main_module():
                    tasks: list[Future[Chunk]] = [
                        pool.submit(decode_chunk, source, path, size, start) for start in starts
                    ]
                for task in as_completed(tasks):
                    chunk = task.result()
                    done.add(chunk[0])
                    yield chunk
            except BrokenProcessPool:
                pass  # a process died (too little memory, a strict sandbox): continue in this one
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for start in starts:
        if start not in done:
            yield decode_chunk(source, path, size, start)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hides the main module from processes that are started in this context.

    They would import it again. This is slow, and it never ends if the main module is a script without a main guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def decode_chunk(source: Source, path: Path, size: int | None, start: int) -> Chunk:
    """Decodes up to `CHUNK` pictures, beginning with ``start``, into their positions in the file ``path``.

    Args:
      source: the encoded pictures.
      path: the file, .npy, uint8 [N,H,W,C].
      size: see `decode_picture`.
      start: index of the first picture.

    Returns:
      ``start``, the labels of the chunk, int32 [n], and the sums over its pixels.

    Raises:
      UserError: a picture cannot be read or does not have the size [H,W].
    """
    images = np.lib.format.open_memmap(path, mode="r+")
    stop = min(start + CHUNK, len(images))
    labels = np.empty(stop - start, np.int32)
    for offset, picture in enumerate(source.read(start, stop)):
        image = decode_picture(picture, size, images.shape[-1])
        if image.shape != images.shape[1:]:
            (height, width), (first_height, first_width) = image.shape[:2], images.shape[1:3]
            raise UserError(
                f"picture {picture.name} has {width}x{height} pixels while the first one has "
                f"{first_width}x{first_height}: give one size, for example --config.data.image_size=64"
            )
        images[start + offset] = image
        labels[offset] = picture.label
    return start, labels, PixelSums.of(images[start:stop])


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
