"""Where the figures of a run are kept: ``metrics.jsonl`` and TensorBoard."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from convnext_jax.errors import UserError, system_reason
from convnext_jax.storage.files import parse_json
from convnext_jax.workdir.growing_file import GrowingFile
from convnext_jax.workdir.tensorboard import EventFile

Line = dict[str, float]
EVALUATED_SPLITS = ("validation", "test")  # a run evaluates one of them while it trains
# The figures of all tasks in words. Of a task's own the first is the one that it is judged by.
LABELS = {
    "mean_iou": "mean IoU",
    "dice": "Dice",
    "pixel_accuracy": "pixel accuracy",
    "top1": "top-1",
    "top5": "top-5",
    "loss": "loss",
}


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
    """Returns the lines of a ``metrics.jsonl``. Damaged ones, such as half a line that a kill left, are left out.

    Raises:
      UserError: there is something else of that name, or it may not be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({system_reason(error)}); mend that, or move it away") from error
    # A power cut may leave a hole of zeros where a line was to come, and the next line follows it directly.
    return [line for text in content.replace(b"\0", b"\n").splitlines() if (line := _parse(text)) is not None]


def evaluated_split(lines: Sequence[Line]) -> str | None:
    """Returns the split that a run evaluated while it trained, ``validation`` or ``test``; None if none yet."""
    return next(
        (split for split in EVALUATED_SPLITS if any(figure_name(split, "loss") in line for line in lines)), None
    )


class MetricsWriter:
    """Writes figures to ``metrics.jsonl`` and to TensorBoard.

    What an earlier start logged after ``first_step``, the step of the checkpoint that this one goes on from, is taken
    back, since those steps are done again. So a run that was killed logs what a run that was not would have.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        path = workdir / "metrics.jsonl"
        before = read_metrics(path)
        kept = [line for line in before if line["step"] <= first_step]
        self._lines = GrowingFile(path, b"".join(map(_text, kept)))
        self._tensorboard = EventFile(workdir / "tensorboard", purge_step=first_step + 1 if before else None)
        self._started = time.monotonic()
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0

    def write(self, step: int, epoch: float, figures: Mapping[str, float]) -> None:
        """Appends a line with the step, the epoch, the seconds of the run over all its starts, and figures."""
        seconds = self._seconds_before + time.monotonic() - self._started
        self._lines.append(_text({"step": step, "epoch": round(epoch, 6), "seconds": round(seconds, 3), **figures}))
        self._tensorboard.add(step, figures)

    def flush(self) -> None:
        """Writes what is not written yet. Called before each checkpoint, so that no line before it can be lost."""
        self._lines.flush()
        self._tensorboard.flush()

    def close(self) -> bool:
        """Writes what is not written yet, and returns whether ``metrics.jsonl`` is whole."""
        self.flush()
        return self._lines.is_whole


def _text(line: Line) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _parse(text: bytes) -> Line | None:
    """Returns a line, None if it is none that `MetricsWriter` wrote."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not all(type(value) in (int, float) for value in line.values()):
        return None
    return line if all(math.isfinite(line.get(name, math.nan)) for name in ("step", "epoch", "seconds")) else None
