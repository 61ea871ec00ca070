"""Whether a machine was at the disposal of the one process that was measured."""

import os
from pathlib import Path


class Usage:
    """Processor time from its creation on, of the whole machine and of one process; Linux alone tells.

    Args:
      pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.before = _seconds(pid)

    def taken_by_others(self, wall: float) -> float:
        """Share of all cores, in [0, 1], that went to other processes and, on a virtual machine, to its host.

        Args:
          wall: seconds since the creation.

        Returns:
          0 where the system does not tell.
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
