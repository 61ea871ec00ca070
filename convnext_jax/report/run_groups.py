"""The runs of several workdirs, read as far as they have come, with the seeds of one configuration in one group."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate.seeds import group_by_seed
from convnext_jax.report.group_names import group_names
from convnext_jax.workdir.claim import has_begun, identity, read_experiment, seed_runs
from convnext_jax.workdir.dataset_record import DatasetRecord
from convnext_jax.workdir.metrics_log import EVALUATED_SPLITS, Line, evaluated_split, read_metrics


@dataclasses.dataclass(frozen=True)
class Examples:
    """What a run is evaluated on. Figures of different examples are not compared.

    Attributes:
      dataset: the data set.
      split: ``test`` or ``validation``.
      count: how many examples there are; None if the run's record does not say.
      checksum: of the examples; None if the run's record does not say.
    """

    dataset: str
    split: str
    count: int | None
    checksum: str | None

    def __str__(self) -> str:
        count = "" if self.count is None else f" ({self.count:,} examples)"
        return f"{self.dataset} {self.split}{count}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of one seed.

    Attributes:
      workdir: its folder.
      experiment: its configuration.
      examples: what it is evaluated on.
      lines: the lines of its ``metrics.jsonl``, at least one.
      finished: whether it has come to its end.
    """

    workdir: Path
    experiment: Experiment
    examples: Examples
    lines: Sequence[Line]
    finished: bool

    @property
    def seed(self) -> int:
        """The seed."""
        return self.experiment.run.seed

    @functools.cached_property
    def evaluations(self) -> Sequence[Line]:
        """The lines that hold an evaluation."""
        return [line for line in self.lines if any(f"{split}/top1" in line for split in EVALUATED_SPLITS)]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
      name: the shortest name that tells the group from the others.
      runs: one for each seed.
    """

    name: str
    runs: Sequence[Run]

    @property
    def label(self) -> str:
        """The name, marked if a run has not finished."""
        return self.name if all(run.finished for run in self.runs) else f"{self.name} (unfinished)"

    @property
    def examples(self) -> Examples:
        """What its runs are evaluated on."""
        return self.runs[0].examples

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What its runs have in common, ``{"section.field": value}``."""
        return _settings(self.runs[0].experiment)


@dataclasses.dataclass(frozen=True)
class Found:
    """What a list of folders holds.

    Attributes:
      runs: the runs that have logged a line.
      waiting: seeds that have not, by their folders.
      skipped: why a folder was left out, a sentence for each.
    """

    runs: Sequence[Run]
    waiting: Sequence[Path]
    skipped: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether no run is still to come to its end."""
        return not self.waiting and all(run.finished for run in self.runs)


def find_runs(folders: Sequence[Path]) -> Found:
    """Reads the runs of workdirs, of one seed or of several. A workdir that is given twice is read once."""
    runs: list[Run] = []
    waiting: list[Path] = []
    skipped: list[str] = []
    seen: set[str] = set()
    for folder in folders:
        if not (folder / "config.json").exists():
            skipped.append(f"{folder} is no workdir of train.py: it has no config.json")
            continue
        try:
            experiment = read_experiment(folder)
            seeds = seed_runs(folder, experiment)
        except UserError as error:
            skipped.append(str(error))
            continue
        if experiment.task.has_masks:
            skipped.append(f"{folder} is a run with masks: compare those with evaluate.py --workdir A B")
            continue
        for workdir, expected in seeds:
            key = os.path.normpath(workdir)
            if key in seen:
                continue
            seen.add(key)
            try:
                run = _read_run(workdir, expected)
            except UserError as error:
                skipped.append(str(error))
                continue
            if run is None:
                waiting.append(workdir)
            else:
                runs.append(run)
    return Found(runs, waiting, skipped)


def _read_run(workdir: Path, expected: Experiment) -> Run | None:
    """Returns a run, None if it has logged nothing."""
    lines = read_metrics(workdir / "metrics.jsonl")
    if not lines or not has_begun(workdir):
        return None
    experiment = read_experiment(workdir) if (workdir / "config.json").exists() else expected
    record = DatasetRecord.read(workdir)
    split = evaluated_split(lines) or ("validation" if "validation" in record.splits else "test")
    entry = record.splits.get(split)
    examples = Examples(record.name, split, entry and entry.examples, entry and entry.checksum)
    # A run that is made longer keeps the summary of the shorter one until its own end.
    finished = (workdir / "summary.json").exists() and lines[-1]["epoch"] > experiment.run.epochs - 1e-3
    return Run(workdir, experiment, examples, lines, finished)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Returns the runs in groups, in the order of their first ones; see `group_by_seed`."""
    groups = group_by_seed(runs, lambda run: (run.examples, _settings(run.experiment)), lambda run: run.seed)
    names = group_names([[run.workdir for run in group] for group in groups])
    return [Group(name, sorted(group, key=lambda run: run.seed)) for name, group in zip(names, groups, strict=True)]


def _settings(experiment: Experiment) -> dict[str, Any]:
    return {name: value for name, value in identity(experiment).items() if name not in ("run.seed", "run.seeds")}
