"""Decodes the pictures of a split into one uint8 array on disk, on all cores."""

import contextlib
import functools
import math
import multiprocessing
import os
import shutil
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, Protocol

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
    allocate({path: (count, *first.shape)}, title)
    decoded = collect(functools.partial(decode_chunk, source, path, size), count, title)
    return decoded.labels, decoded.sums


def allocate(shapes: Mapping[Path, tuple[int, ...]], title: str) -> None:
    """Creates .npy files, uint8, in one folder.

    Args:
      shapes: the shape of each one.
      title: what needs them.

    Raises:
      UserError: the disk is too full.
    """
    folder = next(iter(shapes)).parent
    needed, free = sum(map(math.prod, shapes.values())), shutil.disk_usage(folder).free
    if free < needed:  # checked now because writing to a mapped file on a full disk kills the process silently
        raise UserError(f"{title} needs {needed:,} bytes in {folder}, and {free:,} are free: make room there")
    for path, shape in shapes.items():
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        del array  # each process opens the file again


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
    decoded = collect(functools.partial(scan_chunk, source, shape, size), len(source), title)
    return decoded.labels, decoded.sums, shape


class Chunk(NamedTuple):
    """What is known of some pictures in a row after they are decoded.

    Attributes:
      start: index of the first one.
      labels: int32 [n].
      sums: over their pixels.
      uses: for each value in their masks the first picture whose mask has it; none without masks.
    """

    start: int
    labels: np.ndarray
    sums: PixelSums
    uses: Mapping[int, int] = {}


Task = Callable[[int], Chunk]  # from where a chunk begins; it is pickled and sent to the processes


def collect(task: Task, count: int, title: str) -> Chunk:
    """Runs a task for all chunks of ``count`` pictures, with a progress bar; returns the whole as one chunk."""
    labels = np.empty(count, np.int32)
    sums = PixelSums()
    uses: dict[int, int] = {}
    with tqdm(total=count, desc=title, unit=" images", disable=None) as bar:
        for chunk in _run_chunks(task, count):
            labels[chunk.start : chunk.start + len(chunk.labels)] = chunk.labels
            sums += chunk.sums
            uses |= {value: min(index, uses.get(value, index)) for value, index in chunk.uses.items()}
            bar.update(len(chunk.labels))
    return Chunk(0, labels, sums, uses)


def _run_chunks(task: Task, count: int) -> Iterator[Chunk]:
    """Decodes the chunks of ``count`` pictures, in any order, and yields the result of each one."""
    starts = range(0, count, CHUNK)
    workers = min(usable_cores(), len(starts))
    done: set[int] = set()
    if workers > 1 and count >= SERIAL_BELOW:
        # Processes, not threads: for small pictures the interpreter lock costs more than the decoding. Spawned, not
        # forked: a fork of a process with JAX's threads may hang.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
            try:
                with without_main_module():
                    futures: list[Future[Chunk]] = [pool.submit(task, start) for start in starts]
                for future in as_completed(futures):
                    chunk = future.result()
                    done.add(chunk.start)
                    yield chunk
            except BrokenProcessPool:
                pass  # a process died (too little memory, a strict sandbox): continue in this one
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for start in starts:
        if start not in done:
            yield task(start)


def _end_with_parent() -> None:
    """Ends this process when the one that started it ends, however that ends. It would wait for work forever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


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

    Raises:
      UserError: a picture cannot be read or does not have the size [H,W].
    """
    images = np.lib.format.open_memmap(path, mode="r+")
    stop = min(start + CHUNK, len(images))
    labels = np.empty(stop - start, np.int32)
    for offset, picture in enumerate(source.read(start, stop)):
        images[start + offset] = decode_to_shape(picture, images.shape[1:], size)
        labels[offset] = picture.label
    return Chunk(start, labels, PixelSums.of(images[start:stop]))


def scan_chunk(source: Source, shape: tuple[int, int, int], size: int | None, start: int) -> Chunk:
    """Decodes up to `CHUNK` pictures, beginning with ``start``, and keeps no pixels; see `decode_chunk`."""
    stop = min(start + CHUNK, len(source))
    images, labels = np.empty((stop - start, *shape), np.uint8), np.empty(stop - start, np.int32)
    for offset, picture in enumerate(source.read(start, stop)):
        images[offset] = decode_to_shape(picture, shape, size)
        labels[offset] = picture.label
    return Chunk(start, labels, PixelSums.of(images))


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
