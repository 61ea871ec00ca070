"""The command's side of the conversation with a worker."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparison.machine import Usage
from benchmarks.comparison.protocol import Job

ROOT = Path(__file__).parent.parent.parent

# A call of which others took more than this share of the cores is taken again, up to so many times.
QUIET_SHARE = 0.03
ATTEMPTS = 4


class WorkerFailed(Exception):
    """A worker ended instead of answering."""


class Worker:
    """A process that holds one system; a context manager that ends it.

    Attributes:
      name: of the system.
      description: what the system said of itself.

    Args:
      name: of the system.
      command: starts the process.
      environment: its variables, all of them.
      job: what it is to hold.
      log: file for what it prints.

    Raises:
      WorkerFailed: it could not build the system.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], job: Job, log: Path) -> None:
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
            self.description = self._ask(job.to_json())
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

    def save_logits(self, file: Path) -> None:
        """Has the logits float32 [B,K] written to a .npy file."""
        self._ask({"do": "logits", "file": str(file)})

    def call(self, part: str, count: int) -> dict[str, Any]:
        """So many of a part in a row, one of `benchmarks.comparison.protocol.PARTS`.

        Returns:
          ``seconds`` of all of them, and of steps the last one's ``loss``.
        """
        return self._ask({"do": part, "count": count})

    def measure(self, part: str, count: int) -> tuple[float, float]:
        """Seconds of one of so many in a row, taken again where other processes disturbed them.

        Returns:
          The seconds, and the share of the machine's cores that others took meanwhile.
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
            raise WorkerFailed(f"{self.name} ended: {said[-1] if said else 'without a word'}; all of it in {self._log}")
        return json.loads(line)
