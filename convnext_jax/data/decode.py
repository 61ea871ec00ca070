"""Encoded pictures to one uint8 array on disk, with all cores."""

import contextlib
import io
import multiprocessing
import os
import shutil
import sys
import types
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from convnext_jax.data.dataset import PixelSums
from convnext_jax.errors import UserError

CHUNK = 500  # pictures a task: long enough to hide the cost of a task, short enough for a lively progress bar
SERIAL_BELOW = 4000  # so few pictures are decoded before a pool of processes has started


class Picture(NamedTuple):
    """One encoded picture: a name for messages, the file's bytes, the label."""

    name: str
    encoded: bytes
    label: int


class Source(Protocol):
    """A split's encoded pictures. It is pickled to reach the decoding processes."""

    def __len__(self) -> int:
        """The number of pictures."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """The pictures start, start + 1, ..., stop - 1."""
        ...


def decode_picture(picture: Picture, size: int | None = None) -> np.ndarray:
    """Decodes one picture to RGB.

    Args:
      picture: any format that Pillow reads; greyscale and palettes become RGB.
      size: scale the shorter side to this many pixels (antialiased) and cut the centre square out; None
        leaves the picture as it is.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: the picture cannot be read.
    """
    if not picture.encoded:
        raise UserError(f"picture {picture.name} is empty (0 bytes): replace or remove it")
    try:
        with Image.open(io.BytesIO(picture.encoded)) as opened:
            opened.load()  # a truncated file is found out here
            image = opened if opened.mode == "RGB" else opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"picture {picture.name} cannot be read ({reason}): replace or remove it") from error
    if size is not None and image.size != (size, size):
        image = _resize_and_crop(image, size)
    return np.asarray(image)


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def decode_split(source: Source, path: Path, size: int | None, title: str) -> tuple[np.ndarray, PixelSums]:
    """Decodes a whole split into the file ``path`` (.npy, uint8 [N, H, W, 3]).

    Args:
      source: the encoded pictures, at least one.
      path: the file to write.
      size: see ``decode_picture``; with None all pictures must have one size, that of the first.
      title: what the progress bar says.

    Returns:
      The labels, int32 [N], and the sums over all pixels.

    Raises:
      UserError: a picture cannot be read or differs in size from the first one, or the disk is too full.
    """
    count = len(source)
    first = decode_picture(next(source.read(0, 1)), size)
    needed, free = count * first.nbytes, shutil.disk_usage(path.parent).free
    if free < needed:  # found out now: writing to a mapped file on a full disk ends the process without a word
        raise UserError(f"{title} needs {needed:,} bytes in {path.parent}, and {free:,} are free: make room there")
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *first.shape))
    del images  # the chunks open the file again, in their own processes
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
    """Decodes the chunks that begin at ``starts``, in any order, and yields what each found."""
    workers = min(_cpu_count(), len(starts))
    done: set[int] = set()
    if workers > 1 and len(source) >= SERIAL_BELOW:
        # Processes, not threads: for small pictures the interpreter lock costs more than the decoding.
        # Spawned, not forked: a fork of a process that runs JAX's threads may hang.
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
                pass  # processes that die (too little memory, a strict sandbox): go on alone
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for start in starts:
        if start not in done:
            yield decode_chunk(source, path, size, start)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hides the program's main module from the processes that are started meanwhile.

    They would import it anew: slowly, and again and again in a script that has no main guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def decode_chunk(source: Source, path: Path, size: int | None, start: int) -> Chunk:
    """Decodes up to CHUNK pictures from ``start`` on into their place in the file ``path``."""
    images = np.lib.format.open_memmap(path, mode="r+")
    stop = min(start + CHUNK, len(images))
    labels = np.empty(stop - start, np.int32)
    for offset, picture in enumerate(source.read(start, stop)):
        image = decode_picture(picture, size)
        if image.shape != images.shape[1:]:
            (height, width), (first_height, first_width) = image.shape[:2], images.shape[1:3]
            raise UserError(
                f"picture {picture.name} has {width}x{height} pixels where the first one has "
                f"{first_width}x{first_height}: give one size, for example --config.data.image_size=64"
            )
        images[start + offset] = image
        labels[offset] = picture.label
    return start, labels, PixelSums.of(images[start:stop])


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
