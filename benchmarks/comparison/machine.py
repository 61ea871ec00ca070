"""How much of the machine other processes used during a measurement."""

import os
from pathlib import Path


class Usage:
    """The CPU time that the whole machine and one process have used since this was created. Known on Linux only.

    Args:
      pid: the ID of the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before = _seconds(pid)

    def taken_by_others(self, wall: float) -> float:
        """Returns the share of all cores that other processes used and, on a virtual machine, its host.

        Args:
          wall: seconds since this was created.

        Returns:
          A number in [0, 1]; 0 if the system does not say.
        """
        after = _seconds(self.pid)
        if self.before is None or after is None:
            return 0.0
        machine, process = (late - early for late, early in zip(after, self.before, strict=True))
        return min(max((machine - process) / (wall * (os.cpu_count() or 1)), 0.0), 1.0)


def _seconds(pid: int) -> tuple[float, float] | None:
    try:
        machine = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        process = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen = map(int, machine)
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    tick = 1.0 / os.sysconf("SC_CLK_TCK")
    return busy * tick, (int(process[11]) + int(process[12])) * tick  # user and system time of all threads
