"""The memory that a compiled program needs, and the memory that there is."""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax

from convnext_jax.sharding import Sharding


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Returns the bytes that a program needs on each device while it runs, by XLA's own plan; None if XLA has none.

    These are its arguments, results and intermediate values together; those that share memory count once.
    """
    stats: Any = compiled.memory_analysis()
    if stats is None:
        return None
    return (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    )


def peak_bytes() -> int | None:
    """Returns the most bytes that this process has used on one device; None if the platform does not count them."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((peak for peak in peaks if peak is not None), default=None)


def memory_limit(sharding: Sharding) -> int | None:
    """Returns the bytes that a program may use on each device; None if that is not known.

    It is what JAX takes of an accelerator, or a share of a CPU's free memory.
    """
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in sharding.mesh.local_devices]
    known = [limit for limit in limits if limit is not None]
    if known:
        return min(known)
    devices = sharding.mesh.local_devices
    free = free_memory() if devices[0].platform == "cpu" else None
    return None if free is None else free // len(devices)


def memory_size(sharding: Sharding) -> int | None:
    """Returns the bytes of each device's memory, whatever else uses it; None if that is not known.

    It is what JAX takes of an accelerator, or a share of all of a CPU's memory, within a container's limit.
    """
    devices = sharding.mesh.local_devices
    if devices[0].platform != "cpu":
        return memory_limit(sharding)
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total // len(devices)


def free_memory() -> int | None:
    """Returns the bytes that a new program can have on this machine, within a container's limit; None if not Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        allowed = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit, which is called "max"
        return free
    return min(free, allowed)


def size_text(size: int | None) -> str:
    """Returns bytes in a unit that suits them.

    >>> size_text(3 * 2**29)
    '1.50 GiB'
    """
    if size is None:
        return "unknown"
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def device_text() -> str:
    """Returns the devices in words, such as ``2 x cpu``."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
