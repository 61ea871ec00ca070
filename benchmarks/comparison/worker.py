"""The command's side of the protocol with a worker."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparison.machine import Usage

ROOT = Path(__file__).parent.parent.parent

# A call is repeated if other processes used more than this share of the cores, with this many attempts in all.
QUIET_SHARE = 0.03
ATTEMPTS = 4


class WorkerFailed(Exception):
    """A worker exited instead of answering."""


class Worker:
    """A process that holds one system. As a context manager it ends the process.

    Attributes:
      name: the name of the system.
      description: how the system describes itself.

    Args:
      name: the name of the system.
      command: the command that starts the process.
      environment: all environment variables of the process.
      job: what the worker has to build, as plain values.
      log: the file for what the process prints.

    Raises:
      WorkerFailed: the worker could not build the system.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], job: Mapping[str, Any], log: Path
    ) -> None:
        self.name = name
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            )
        try:
            self.description = self._ask(dict(job))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def save(self, what: str, file: Path) -> None:
        """Makes the worker write what it is asked for.

        Args:
          what: ``logits``, float32 [B,K], to a .npy file; of a worker of `benchmarks.comparison.layer_cases`
            ``NUMBER:results``, the arrays of a layer, to a .npz file.
          file: where to.
        """
        self._ask({"do": what, "file": str(file)})

    def call(self, part: str, count: int) -> dict[str, Any]:
        """Runs one of the parts that the worker knows ``count`` times in a row.

        Returns:
          ``seconds``, the time of all of them; and ``loss``, after steps that of the last one.
        """
        return self._ask({"do": part, "count": count})

    def measure(self, part: str, count: int) -> tuple[float, float]:
        """Runs a part ``count`` times in a row, and again if other processes disturbed it.

        Returns:
          The mean seconds of one, and the share of the machine's cores that other processes used meanwhile.
        """
        attempts = []
        for _ in range(ATTEMPTS):
            usage, started = Usage(self._process.pid), time.perf_counter()
            seconds = self.call(part, count)["seconds"]
            attempts.append((usage.taken_by_others(time.perf_counter() - started), seconds / count))
            if attempts[-1][0] <= QUIET_SHARE:
                break
        share, seconds = min(attempts)
        return seconds, share

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self._log.read_text().strip().splitlines()
            raise WorkerFailed(f"{self.name} ended: {said[-1] if said else 'no output'}; all of it in {self._log}")
        return json.loads(line)
