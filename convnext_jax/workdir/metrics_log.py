"""Where the figures of a run are kept: ``metrics.jsonl`` and TensorBoard."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from convnext_jax.files import write_text

Line = dict[str, float]


def figure_name(split: str, metric: str) -> str:
    """Returns the name that a figure of an evaluation has in the log.

    >>> figure_name("test", "top1"), figure_name("test", "ema/top1")
    ('test/top1', 'test_ema/top1')

    Args:
      split: the split that was evaluated.
      metric: the metric, after ``ema/`` for the moving average's.
    """
    average, _, name = metric.rpartition("/")
    return f"{split}_{average}/{name}" if average else f"{split}/{name}"


def read_metrics(path: Path) -> list[Line]:
    """Returns the lines of a ``metrics.jsonl``, without a last line that a kill cut off."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    complete = lines if not lines or _is_json(lines[-1]) else lines[:-1]
    return [json.loads(line) for line in complete]


class MetricsWriter:
    """Writes figures to ``metrics.jsonl`` and to TensorBoard.

    What an earlier start logged after ``first_step``, the step of the checkpoint that this one goes on from, is taken
    back, since those steps are done again. So a run that was killed logs what a run that was not would have.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= first_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1 if kept else None)
        self._started = time.monotonic()
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0

    def write(self, step: int, epoch: float, figures: Mapping[str, float]) -> None:
        """Appends a line with the step, the epoch, the seconds of the run over all its starts, and figures."""
        seconds = self._seconds_before + time.monotonic() - self._started
        line = {"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3), **figures}
        self._file.write(json.dumps(line) + "\n")
        for name, value in figures.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._tensorboard.close()


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
