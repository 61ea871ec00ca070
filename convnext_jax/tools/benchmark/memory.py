"""The memory that a compiled program needs, and that there is."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that a program needs on each device while it runs, by XLA's own plan; None where XLA tells none.

    Its arguments, results and intermediate values together, those that share their place counted once.
    """
    stats: Any = compiled.memory_analysis()
    if stats is None:
        return None
    return (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes + stats.temp_size_in_bytes
    )


def peak_bytes() -> int | None:
    """The most bytes that this process has had in use on one device; None where the backend does not count them."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    return max((peak for peak in peaks if peak is not None), default=None)


def memory_limit(mesh: Mesh) -> int | None:
    """Bytes that a program may use on each device: what JAX takes of an accelerator, or a share of a CPU's free memory.

    None where neither is known.
    """
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.local_devices]
    known = [limit for limit in limits if limit is not None]
    if known:
        return min(known)
    free = free_memory() if mesh.local_devices[0].platform == "cpu" else None
    return None if free is None else free // len(mesh.local_devices)


def free_memory() -> int | None:
    """Bytes of this machine's memory that a new program can have, a container's limit included; None if not Linux."""
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
    """Bytes in the unit that suits them.

    >>> size_text(3 * 2**29)
    '1.50 GiB'
    """
    if size is None:
        return "unknown"
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def device_text() -> str:
    """The devices in words, such as ``2 x cpu``."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
