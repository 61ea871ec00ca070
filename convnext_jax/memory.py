"""The memory that a compiled program needs, and the memory that there is."""

import os
from collections.abc import Iterator
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
    return min([total, *(limit for limit, _ in _control_groups(Path("/")))]) // len(devices)


def free_memory(system: Path = Path("/")) -> int | None:
    """Returns the bytes that a new program can have on this machine, within a container's limit; None if not Linux.

    What the system keeps of files counts as free, since it gives that up for a program.

    Args:
      system: the root of the file system.
    """
    try:
        free = _numbers(system / "proc/meminfo")["MemAvailable"] * 1024
    except (OSError, KeyError):
        return None
    return max(min([free, *(limit - used for limit, used in _control_groups(system))]), 0)


# By version: where the groups are, the files that have a group's limit and use, and the prefix of the fields of its
# memory.stat that count the groups inside.
_GROUPS = {
    1: ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    2: ("sys/fs/cgroup", "memory.max", "memory.current", ""),
}


def _control_groups(system: Path) -> Iterator[tuple[int, int]]:
    """Yields the limit and the use, in bytes, of each control group with a limit that this process is in.

    Docker, Kubernetes, Slurm and systemd limit memory by these. The use is without what is kept of files.
    """
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = 2 if not controllers else 1 if "memory" in controllers.split(",") else None
        if version is None:
            continue
        folder, limit, use, prefix = _GROUPS[version]
        top = system / folder
        group = top / path.lstrip("/")
        # All groups around it, too. A container may see the path outside of it and the groups inside: then only the
        # top is there.
        for each in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            try:
                kept = _numbers(each / "memory.stat")
                files = kept.get(f"{prefix}active_file", 0) + kept.get(f"{prefix}inactive_file", 0)
                yield int((each / limit).read_text()), int((each / use).read_text()) - files
            except (OSError, ValueError):  # no such group, or one without a limit, which is called "max"
                continue


def _numbers(path: Path) -> dict[str, int]:
    """Returns the numbers of a file of the kernel by their names."""
    lines = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {name: int(value) for name, value, *_ in lines}


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
