"""Where figures go: ``metrics.jsonl``, TensorBoard and the terminal."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm

Line = dict[str, float]


def read_metrics(path: Path) -> list[Line]:
    """The lines of a ``metrics.jsonl``; a last line that a kill cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    whole = lines if not lines or _is_json(lines[-1]) else lines[:-1]
    return [json.loads(line) for line in whole]


class MetricsWriter:
    """Writes figures to ``metrics.jsonl`` and to TensorBoard.

    What an earlier start logged after ``first_step``, the step of the checkpoint that this one goes on from, is taken
    back, since those steps are done again: a run that was killed logs what a run that was not would have.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["step"] <= first_step]
        temporary = path.with_name(".metrics.jsonl")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)
        self._file = path.open("a", buffering=1)
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


class Progress:
    """Shows how far a run is: a bar on a terminal, else a plain line for each epoch and each evaluation.

    Args:
      total_steps: steps of the run.
      first_step: where this start goes on from.
      steps_per_epoch: steps of an epoch.
    """

    def __init__(self, total_steps: int, first_step: int, steps_per_epoch: int) -> None:
        self._total, self._steps_per_epoch = total_steps, steps_per_epoch
        self._started, self._first, self._step = time.monotonic(), first_step, first_step
        self._figures: dict[str, float] = {}
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
        self._bar = (
            tqdm(total=total_steps, initial=first_step, bar_format=form, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def update(self, step: int, figures: Mapping[str, float]) -> None:
        """Shows the figures of a step, of the training or of an evaluation."""
        epochs = step // self._steps_per_epoch
        label = f"epoch {epochs}/{self._total // self._steps_per_epoch}"
        if self._bar is not None:
            # Between two evaluations the last one's accuracy stays on show.
            self._figures |= figures
            self._bar.set_description_str(label, refresh=False)
            self._bar.set_postfix_str(_text(self._figures), refresh=False)
            self._bar.update(step - self._step)
        elif "train/loss" not in figures or epochs > self._step // self._steps_per_epoch:
            pace = (time.monotonic() - self._started) / (step - self._first)
            left = tqdm.format_interval(pace * (self._total - step))
            print(f"{label}, {_text(figures)}, {left} left", file=sys.stderr, flush=True)
        self._step = step

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()


def _text(figures: Mapping[str, float]) -> str:
    forms = {
        "train/loss": "loss {:.3f}",
        "train/top1": "train {:.1%}",
        "validation/top1": "validation {:.2%}",
        "validation/top5": "validation top-5 {:.2%}",
        "validation_ema/top1": "validation EMA {:.2%}",
        "test/top1": "test {:.2%}",
        "test/top5": "test top-5 {:.2%}",
        "test_ema/top1": "test EMA {:.2%}",
        "train/images_per_second": "{:.0f} images/s",
    }
    return ", ".join(form.format(figures[name]) for name, form in forms.items() if name in figures)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return False
    return True
