"""Decodes the pictures of a split into one uint8 array on disk, on all cores."""

import contextlib
import functools
import multiprocessing
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from convnext_jax.data.dataset import PixelSums
from convnext_jax.data.decode import Picture, decode_picture, decode_to_shape
from convnext_jax.errors import UserError

CHUNK = 500  # pictures per task: enough to hide the overhead of a task, few enough for a smooth progress bar
SERIAL_BELOW = 4000  # fewer pictures than this are decoded before a pool of processes has started


class Source(Protocol):
    """The encoded pictures of a split. Sources are pickled and sent to the processes that decode."""

    def __len__(self) -> int:
        """Returns the number of pictures."""
        ...

    def read(self, start: int, stop: int) -> Iterator[Picture]:
        """Yields the pictures start, start + 1, ..., stop - 1."""
        ...


def decode_split(
    source: Source, path: Path, size: int | None, channels: int, title: str
) -> tuple[np.ndarray, PixelSums]:
    """Decodes a split into a .npy file, uint8 [N,H,W,C].

    Args:
      source: the encoded pictures, at least one.
      path: the file to write.
      size: see `convnext_jax.data.decode.decode_picture`. If None, all pictures must have the same size.
      channels: C, see `convnext_jax.data.decode.decode_picture`.
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
    return _collect(functools.partial(decode_chunk, source, path, size), count, title)


def scan_split(
    source: Source, size: int | None, channels: int, title: str
) -> tuple[np.ndarray, PixelSums, tuple[int, ...]]:
    """Decodes a split and keeps no pixels: for what must be known of one that stays encoded.

    Args:
      source: the encoded pictures, at least one.
      size: see `convnext_jax.data.decode.decode_picture`. If None, all pictures must have the same size.
      channels: C, see `convnext_jax.data.decode.decode_picture`.
      title: title of the progress bar.

    Returns:
      The labels, int32 [N], the sums over all pixels, and the shape (H, W, C) of each picture.

    Raises:
      UserError: a picture cannot be read, or differs in size from the first one.
    """
    shape = decode_picture(next(source.read(0, 1)), size, channels).shape
    labels, sums = _collect(functools.partial(scan_chunk, source, shape, size), len(source), title)
    return labels, sums, shape


Chunk = tuple[int, np.ndarray, PixelSums]
Task = Callable[[int], Chunk]  # from where a chunk begins; it is pickled and sent to the processes


def _collect(task: Task, count: int, title: str) -> tuple[np.ndarray, PixelSums]:
    labels = np.empty(count, np.int32)
    sums = PixelSums()
    with tqdm(total=count, desc=title, unit=" images", disable=None) as bar:
        for start, chunk_labels, chunk_sums in _run_chunks(task, count):
            labels[start : start + len(chunk_labels)] = chunk_labels
            sums += chunk_sums
            bar.update(len(chunk_labels))
    return labels, sums


def _run_chunks(task: Task, count: int) -> Iterator[Chunk]:
    """Decodes the chunks of ``count`` pictures, in any order, and yields the result of each one."""
    starts = range(0, count, CHUNK)
    workers = min(usable_cores(), len(starts))
    done: set[int] = set()
    if workers > 1 and count >= SERIAL_BELOW:
        # Processes, not threads: for small pictures the interpreter lock costs more than the decoding. Spawned, not
        # forked: a fork of a process with JAX's threads may hang.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            try:
                with without_main_module():
                    futures: list[Future[Chunk]] = [pool.submit(task, start) for start in starts]
                for future in as_completed(futures):
                    chunk = future.result()
                    done.add(chunk[0])
                    yield chunk
            except BrokenProcessPool:
                pass  # a process died (too little memory, a strict sandbox): continue in this one
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for start in starts:
        if start not in done:
            yield task(start)


@contextlib.contextmanager
def without_main_module() -> Iterator[None]:
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
      size: see `convnext_jax.data.decode.decode_picture`.
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
        images[start + offset] = decode_to_shape(picture, images.shape[1:], size)
        labels[offset] = picture.label
    return start, labels, PixelSums.of(images[start:stop])


def scan_chunk(source: Source, shape: tuple[int, int, int], size: int | None, start: int) -> Chunk:
    """Decodes up to `CHUNK` pictures, beginning with ``start``, and keeps no pixels; see `decode_chunk`."""
    stop = min(start + CHUNK, len(source))
    images, labels = np.empty((stop - start, *shape), np.uint8), np.empty(stop - start, np.int32)
    for offset, picture in enumerate(source.read(start, stop)):
        images[offset] = decode_to_shape(picture, shape, size)
        labels[offset] = picture.label
    return start, labels, PixelSums.of(images)


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
