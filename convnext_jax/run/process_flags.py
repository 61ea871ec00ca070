"""What the command line says of the processes that train together. Imports nothing slow."""

import dataclasses
import math

from convnext_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProcessFlags:
    """What the command line says of the processes.

    Attributes:
      coordinator: ``HOST:PORT`` of process 0, None to find the processes by the environment.
      num_processes: how many there are.
      process_id: number of this one, from 0.
      timeout: seconds to wait for the others.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout: float = 300.0

    def __post_init__(self) -> None:
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise UserError(f"--coordinator_timeout={self.timeout:g}: must be a number of seconds above 0")
        given: dict[str, object] = {
            "--coordinator": self.coordinator,
            "--num_processes": self.num_processes,
            "--process_id": self.process_id,
        }
        missing = [name for name, value in given.items() if value is None]
        if missing and len(missing) < len(given):
            raise UserError(f"{', '.join(missing)} missing: several processes need {', '.join(given)}")
        if self.num_processes is None or self.process_id is None or self.coordinator is None:
            return
        if self.num_processes < 1:
            raise UserError(f"--num_processes={self.num_processes}: must be 1 or more")
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(f"--process_id={self.process_id}: must be in [0, {self.num_processes - 1}]")
        if not 0 < self.port < 2**16 - 1:
            raise UserError(f"--coordinator {self.coordinator}: must be HOST:PORT, such as 10.0.0.1:8476")

    @property
    def host(self) -> str:
        """The host of process 0."""
        return (self.coordinator or "").rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of process 0; the one after it is JAX's. 0 if there is none."""
        host, _, port = (self.coordinator or "").rpartition(":")
        return int(port) if host and port.isdecimal() else 0
