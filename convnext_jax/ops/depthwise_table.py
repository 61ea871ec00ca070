"""Which algorithm of the depthwise convolution was measured to be the fastest, by device, dtype and shape.

The measurements are ``depthwise_table.json`` beside this file. ``python -m convnext_jax.tools.measure_depthwise`` makes
them on a new machine.
"""

import dataclasses
import fnmatch
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

TABLE = Path(__file__).with_name("depthwise_table.json")
NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Row:
    """Milliseconds of each algorithm at one shape.

    Attributes:
      dtype: of the maps.
      size: k of the kernel.
      height: of the maps.
      width: of the maps.
      channels: of the maps.
      batch: number of maps.
      forward: by algorithm, of the convolution; that of its gradient by the input is the same.
      kernel_gradient: by algorithm, of the gradient by the kernel.
    """

    dtype: str
    size: int
    height: int
    width: int
    channels: int
    batch: int
    forward: Mapping[str, float]
    kernel_gradient: Mapping[str, float]

    @property
    def shape(self) -> tuple[str, int, int, int, int]:
        """What a row is of; a table has one row of each."""
        return self.dtype, self.size, self.height, self.width, self.channels


@dataclasses.dataclass(frozen=True)
class Device:
    """What was measured on one kind of device.

    Attributes:
      platform: that a program is compiled for, such as "cuda".
      kind: a pattern, such as "NVIDIA H100*", of `jax.Device.device_kind`.
      machine: processor, cores and versions, for the reader.
      rows: none where nothing was measured yet.
    """

    platform: str
    kind: str
    machine: str
    rows: tuple[Row, ...]


def read_table(path: Path = TABLE) -> list[Device]:
    """The devices of a table, in the order of the file."""

    def device(content: dict[str, Any]) -> Device:
        rows = () if content["rows"] == NOT_MEASURED else tuple(Row(**row) for row in content["rows"])
        return Device(content["platform"], content["kind"], content["machine"], rows)

    return [device(content) for content in json.loads(path.read_text())]


def write_table(path: Path, devices: Sequence[Device]) -> None:
    """Writes a table, one row a line."""
    texts = []
    for device in devices:
        head = json.dumps({"platform": device.platform, "kind": device.kind, "machine": device.machine})[:-1]
        rows = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in device.rows)
        texts.append(f'{head}, "rows": ' + (f"[\n{rows}\n]}}" if rows else f'"{NOT_MEASURED}"}}'))
    path.write_text("[\n" + ",\n".join(texts) + "\n]\n")


def fastest(operation: str, platform: str, shape: tuple[int, ...], size: int, dtype: str) -> str | None:
    """The algorithm that was the fastest at the nearest measured shape.

    The size of the batch has no say: a map's result must not depend on how many others stand beside it.

    Args:
      operation: "forward" or "kernel_gradient".
      platform: that the program is compiled for.
      shape: [B,H,W,C] of the maps.
      size: k of the kernel.
      dtype: of the maps.

    Returns:
      Its name, or None where nothing was measured on the platform for a device of the kind at hand.
    """
    rows = _measured_rows(platform)
    if not rows:
        return None
    _, height, width, channels = shape

    def distance(row: Row) -> float:
        taps = 2 * abs(math.log2(row.size / size))
        pixels = abs(math.log2(row.height * row.width / (height * width)))
        return taps + pixels + 0.5 * abs(math.log2(row.channels / channels)) + (row.dtype != dtype)

    milliseconds = getattr(min(rows, key=distance), operation)
    return min(milliseconds, key=milliseconds.__getitem__)


@functools.cache
def _measured_rows(platform: str) -> tuple[Row, ...]:
    """The rows of the first device of the file that fits the one at hand."""
    for device in read_table():
        if device.platform == platform and device.rows:
            # A CPU's kind says nothing, and is known without asking for the devices, which starts them.
            if platform == "cpu" or fnmatch.fnmatch(jax.local_devices()[0].device_kind, device.kind):
                return device.rows
    return ()
