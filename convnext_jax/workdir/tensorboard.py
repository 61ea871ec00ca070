"""Figures for TensorBoard, in its event files."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from convnext_jax.workdir.growing_file import GrowingFile


class EventFile:
    """An event file of its own for each start of a run.

    tensorboardX's own writer hands events to a thread, which ends at the first error. On a full disk the training would
    then wait for it forever.

    Args:
      folder: where the event files are; created if it does not exist.
      purge_step: TensorBoard drops what earlier files say of this step and later ones; None keeps everything.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        content = _record(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            content += _record(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._file = GrowingFile(folder / name, content)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds figures of a step."""
        events = (Event(wall_time=time.time(), step=step, summary=scalar(*figure)) for figure in figures.items())
        self._file.append(b"".join(map(_record, events)))

    def flush(self) -> None:
        """Writes what is not written yet; see `GrowingFile.flush`."""
        self._file.flush()


def _record(event: Event) -> bytes:
    """Returns an event in TFRecord's frame: its length and itself, each with a checksum."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(checksums) + content + next(checksums)
