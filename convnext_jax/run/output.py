"""Everything that a run prints and writes, except its checkpoints. Only the lead process does, and it is asked here."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from convnext_jax.config import Experiment
from convnext_jax.errors import writing
from convnext_jax.run.environment import describe_environment
from convnext_jax.run.extend import extend
from convnext_jax.storage.files import write_json
from convnext_jax.workdir.checkpoint_folder import set_damaged_aside
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord
from convnext_jax.workdir.lock import WorkdirLock
from convnext_jax.workdir.metrics_log import MetricsWriter, figure_name, read_metrics
from convnext_jax.workdir.rollbacks import Rollback, write_rollbacks
from convnext_jax.workdir.tracker import Tracker
from convnext_jax.workdir.tracking import open_tracker


def is_lead_process() -> bool:
    """Returns whether this process prints and writes what all processes have in common."""
    return jax.process_index() == 0


class Output:
    """What a run prints and writes in its workdir; nothing in any process but the lead.

    Args:
      workdir: the folder of the run.
      lead: whether this is the lead process; None asks JAX.
    """

    def __init__(self, workdir: Path, *, lead: bool | None = None) -> None:
        self.workdir = workdir
        self.lead = is_lead_process() if lead is None else lead
        self._log: tuple[MetricsWriter, Progress, int] | None = None
        self._tracker: Tracker | None = None

    def say(self, text: str) -> None:
        """Prints a line on stderr."""
        if self.lead:
            print(text, file=sys.stderr, flush=True)

    def claim(self, experiment: Experiment) -> None:
        """Creates the workdir and writes ``config.json``; raises UserError if it cannot be written."""
        if self.lead:
            write_claim(self.workdir, experiment)

    def lock(self, resources: contextlib.ExitStack) -> WorkdirLock | None:
        """Creates the workdir and takes the right to write in it, until the resources are closed.

        Raises:
          UserError: another run has it, or the folder cannot be written.
        """
        if not self.lead:
            return None
        with writing(self.workdir, "--workdir"):
            self.workdir.mkdir(parents=True, exist_ok=True)
            return resources.enter_context(WorkdirLock(self.workdir))

    def set_damaged_aside(self) -> None:
        """Moves damaged checkpoints aside, and says so."""
        for note in set_damaged_aside(self.workdir / "checkpoints") if self.lead else ():
            self.say(note)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Turns an error of the system inside into a UserError that names a file of the workdir."""
        with writing(self.workdir / name, "--workdir"):
            yield self.workdir / name

    def extend(self, before: Experiment, after: Experiment, steps_per_epoch: int) -> None:
        """Makes the run longer; see `convnext_jax.run.extend.extend`."""
        if self.lead:
            self.say(extend(self.workdir, before, after, steps_per_epoch))
            write_claim(self.workdir, after)

    def record(self, record: DatasetRecord) -> None:
        """Writes ``dataset.json``, with which the run has begun."""
        if self.lead:
            with self._writing("dataset.json"):
                record.write(self.workdir)

    def record_rollbacks(self, rollbacks: Sequence[Rollback]) -> None:
        """Writes ``rollbacks.json``."""
        if self.lead:
            with self._writing("rollbacks.json"):
                write_rollbacks(self.workdir, rollbacks)

    def begin(self, first_step: int) -> None:
        """Writes ``environment.json``: what this start of the run runs on."""
        if self.lead:
            with self._writing("environment.json") as path:
                write_json(path, describe_environment() | {"first_step": first_step})

    def open_log(self, first_step: int, total_steps: int, steps_per_epoch: int, experiment: Experiment) -> None:
        """Opens the log of figures and shows the progress, from the step that this start goes on from.

        Raises:
          UserError: the log cannot be written, or the tracker cannot be used.
        """
        if self.lead:
            lines = read_metrics(self.workdir / "metrics.jsonl")
            name, settings = experiment.run.tracker, experiment.to_dict()
            self._tracker = open_tracker(name, self.workdir, settings, lines, first_step)
            with self._writing("metrics.jsonl"):
                writer = MetricsWriter(self.workdir, first_step)
            self._log = writer, Progress(total_steps, first_step, steps_per_epoch), steps_per_epoch

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs and shows the figures of a step, of the training or of an evaluation."""
        if self._log is not None:
            writer, progress, steps_per_epoch = self._log
            writer.write(step, step / steps_per_epoch, figures)
            progress.update(step, figures)
            if self._tracker is not None:
                self._tracker.log(step, {"epoch": step / steps_per_epoch, **figures})

    def flush_log(self) -> None:
        """Writes what the log does not hold yet; see `MetricsWriter.flush`."""
        if self._log is not None:
            self._log[0].flush()

    def check_folder(self) -> None:
        """Raises OSError if the workdir is no longer there, so that nothing makes a new one in its place."""
        if self.lead and not (self.workdir / "config.json").exists():
            raise FileNotFoundError(f"{self.workdir / 'config.json'} is gone")

    def close_log(self, *, completed: bool) -> bool:
        """Closes the log, and returns whether all of it could be written.

        Args:
          completed: whether the run has come to its end.
        """
        if self._log is None:
            return True
        writer, progress, _ = self._log
        self._log = None
        progress.close()
        is_whole = writer.close()
        if self._tracker is not None:
            self._tracker.close(completed=completed)
            self._tracker = None
        return is_whole


class Progress:
    """Shows how far a run is: a bar on a terminal, otherwise a line for each epoch and each evaluation.

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
            # Between two evaluations the accuracy of the last one stays visible.
            self._figures |= figures
            self._bar.set_description_str(label, refresh=False)
            self._bar.set_postfix_str(_text(self._figures), refresh=False)
            self._bar.update(step - self._step)
        elif "train/loss" not in figures or epochs > self._step // self._steps_per_epoch:
            left = ""
            if step > self._first:  # not where a start only makes up for an evaluation
                pace = (time.monotonic() - self._started) / (step - self._first)
                left = f", {tqdm.format_interval(pace * (self._total - step))} left"
            print(f"{label}, {_text(figures)}{left}", file=sys.stderr, flush=True)
        self._step = step

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()


_FORMS = {"train/loss": "loss {:.3f}", "train/pixel_accuracy": "train pixels {:.1%}", "train/top1": "train {:.1%}"}
_OF_A_SPLIT = {
    "mean_iou": "mean IoU {:.2%}",
    "dice": "Dice {:.2%}",
    "ema/mean_iou": "EMA mean IoU {:.2%}",
    "top1": "{:.2%}",
    "top5": "top-5 {:.2%}",
    "ema/top1": "EMA {:.2%}",
}
for _split in ("validation", "test"):
    for _metric, _form in _OF_A_SPLIT.items():
        _FORMS[figure_name(_split, _metric)] = f"{_split} {_form}"
_FORMS["train/images_per_second"] = "{:.0f} images/s"


def _text(figures: Mapping[str, float]) -> str:
    return ", ".join(form.format(figures[name]) for name, form in _FORMS.items() if name in figures)
