"""Several seeds of one experiment, trained one after another."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from convnext_jax.run import loop
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.run.signals import StopSignals
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.workdir.records import DatasetRecord, claim, seed_runs, write_json


def train_seeds(
    experiment: Experiment, dataset: Dataset, workdir: Path, mesh: Mesh, programs: TrainPrograms
) -> dict[str, Any]:
    """Trains each seed to its end in a workdir of its own below the given one; those that are there are not repeated.

    A seed's workdir is what a run of that seed alone would make of it, with the same figures to the last bit.

    Args:
      experiment: the settings, of two seeds or more; they and the workdir have been checked.
      dataset: the data, on the host.
      workdir: where the seeds' workdirs and ``summary.json`` are written.
      mesh: the devices.
      programs: where the steps are compiled, once for all seeds.

    Returns:
      What ``summary.json`` holds: the mean and the sample standard deviation of the seeds' final figures, and the
      summary of each seed.

    Raises:
      UserError: a seed's workdir belongs to another configuration.
      Diverged: see ``loop.train``; the seeds before are kept.
      Stopped: a signal came; what was trained is saved.
    """
    runs = seed_runs(workdir, experiment)
    for directory, one in runs:
        claim(directory, one)
    summaries: dict[str, dict[str, Any]] = {}
    with StopSignals() as signals:
        for directory, one in runs:
            if signals.received is not None:
                done = f"{len(summaries)} of {len(runs)} seeds are trained in {workdir}"
                raise loop.Stopped(f"{signals.received}: {done}; run the same command to go on")
            print(f"seed {one.run.seed}, {len(summaries) + 1} of {len(runs)}: {directory}", file=sys.stderr, flush=True)
            DatasetRecord.of(dataset).write(directory)
            summaries[str(one.run.seed)] = loop.train(one, dataset, directory, mesh, programs)
    summary = {
        "split": summaries[str(experiment.run.seed)]["split"],
        **over_seeds(_figures(each["final"]) for each in summaries.values()),
        "seconds": sum(each["seconds"] for each in summaries.values()),
        "seeds": summaries,
    }
    write_json(workdir / "summary.json", summary)
    return summary


def _figures(line: Mapping[str, float]) -> dict[str, float]:
    """What was measured, without the step and the epoch."""
    return {name: value for name, value in line.items() if "/" in name}
