"""From the name of a topology to devices that a program can be compiled for, whether or not they are here."""

import dataclasses
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from typing import Any

from convnext_jax.errors import UserError, first_line
from convnext_jax.tools.plan.chips import CHIPS, Chip

# libtpu looks for the machine that it runs on, which there need not be.
_NO_TPU_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# A device of v4 and v5p is a whole chip, with both of its cores.
_OPTIONS: dict[str, dict[str, Any]] = {"v4": {"chip_config_name": "megacore"}}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips and how they are connected.

    Attributes:
      name: as it was given, such as ``v5e:2x4``.
      chip: what each of them is; None for simulated devices of a CPU.
      count: number of chips.
    """

    name: str
    chip: Chip | None
    count: int

    @property
    def is_tpu(self) -> bool:
        """Whether the program is compiled for the chips themselves, not for a CPU."""
        return self.chip is not None and self.chip.is_tpu


def read_topology(name: str) -> Topology:
    """Reads the name of a topology.

    >>> read_topology("v5e:2x4").count
    8

    Raises:
      UserError: there is no such chip, or its topology is not written so.
    """
    kind, _, size = name.partition(":")
    chip = CHIPS.get(kind)
    form = chip.sizes if chip else "N"
    pattern = re.sub(r"[NXYZ]", r"[1-9]\\d{0,4}", form)
    if (chip is None and kind != "cpu") or not re.fullmatch(pattern, size):
        known = ", ".join(["cpu:N", *(f"{each.name}:{each.sizes}" for each in CHIPS.values())])
        raise UserError(f"--topology {name}: unknown; known are {known}, with numbers, such as v5e:2x4")
    count = 1
    for side in size.split("x"):
        count *= int(side)
    return Topology(name, chip, count)


def check_compiler(topology: Topology) -> None:
    """Raises UserError if what compiles for the chips is not installed."""
    if topology.is_tpu and importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--topology {topology.name}: TPU's compiler is not installed; pip install 'jax[tpu]'")


def compiler_mismatch() -> str | None:
    """Returns how TPU's compiler differs from the release that belongs to this JAX; None if it is not known to."""
    found = importlib.metadata.version("libtpu")
    for requirement in importlib.metadata.requires("jax") or ():
        wanted = re.match(r"libtpu *== *([\d.]+)\.\*", requirement)
        if wanted and not f"{found}.".startswith(f"{wanted[1]}."):
            jax_version = importlib.metadata.version("jax")
            return f"libtpu {found} is not that of jax {jax_version}, {wanted[1]}; pip install 'jax[tpu]' installs that"
    return None


def devices_of(topology: Topology) -> Sequence[Any]:
    """Returns the devices of a topology; those of a TPU can be compiled for and no more.

    Raises:
      UserError: the compiler knows no such topology, or JAX has started with fewer devices of the CPU.
    """
    import jax  # a second to import, and the name is checked without it

    if topology.is_tpu:
        from jax.experimental import topologies

        for variable, value in _NO_TPU_HERE.items():
            os.environ.setdefault(variable, value)
        kind = topology.name.partition(":")[0]
        try:
            return topologies.get_topology_desc(topology.name, "tpu", **_OPTIONS.get(kind, {})).devices
        except jax.errors.JaxRuntimeError as error:
            reason = first_line(error).partition(": ")[2] or first_line(error)
            raise UserError(f"--topology {topology.name}: TPU's compiler refuses it: {reason}") from error
    devices = jax.devices("cpu")
    if len(devices) < topology.count:
        raise UserError(f"--topology {topology.name}: JAX has started with {len(devices)} devices of the CPU already")
    return devices[: topology.count]


def start_on_cpu(topology: Topology) -> None:
    """Starts JAX on the CPU alone, with as many devices as a topology simulates. To be called before anything else."""
    import jax

    from convnext_jax.run.jax_settings import start_jax

    # What was compiled for chips that are not here cannot be loaded from a cache.
    jax.config.update("jax_enable_compilation_cache", False)
    if not topology.is_tpu:
        jax.config.update("jax_num_cpu_devices", topology.count)
    start_jax("cpu")
