"""Several seeds of one experiment, trained one after another."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from convnext_jax.config import Experiment
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.run.extend import check_start
from convnext_jax.run.loop import Stopped
from convnext_jax.run.output import Output
from convnext_jax.run.peers import ALONE, Peers
from convnext_jax.run.prepare import check_without_data, load_data
from convnext_jax.run.rollback import train_to_the_end
from convnext_jax.run.signals import StopSignals
from convnext_jax.storage.files import write_json
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.claim import has_begun, seed_runs
from convnext_jax.workdir.dataset_record import DatasetRecord


def train_seeds(
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh,
    compiler: StepCompiler,
    *,
    peers: Peers = ALONE,
    extend: bool = False,
) -> dict[str, Any]:
    """Trains each seed to its end in a workdir of its own below the given one. Finished ones are not repeated.

    The workdir of a seed is what a run of that seed alone would make of it, with the same figures to the last bit.

    Args:
      experiment: the settings, of two seeds or more.
      workdir: where the seeds' workdirs and ``summary.json`` are written.
      mesh: the devices.
      compiler: compiles the steps, once for all seeds.
      peers: all processes of the run.
      extend: whether the runs may be some with fewer epochs, which are made longer.

    Returns:
      What ``summary.json`` holds: the mean and the sample standard deviation of the seeds' final figures, and the
      summary of each seed.

    Raises:
      UserError: see ``prepare``; the workdir of each seed is checked before the first is trained.
      Diverged: see ``train``; the seeds before are kept.
      Stopped: a signal came; what was trained is saved.
    """
    with peers.together():
        check_without_data(experiment)
        for directory, one in ((workdir, experiment), *seed_runs(workdir, experiment)):
            check_start(directory, one, may_extend=extend)
    with contextlib.ExitStack() as resources:
        output = Output(workdir)
        with peers.together():
            output.lock(resources)
            output.claim(experiment)
        return _train_each(experiment, workdir, mesh, compiler, peers, output, extend)


def _train_each(
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh,
    compiler: StepCompiler,
    peers: Peers,
    output: Output,
    extend: bool,
) -> dict[str, Any]:
    runs = seed_runs(workdir, experiment)
    dataset = load_data(experiment, peers)
    output.say(dataset.describe())
    summaries: dict[str, dict[str, Any]] = {}
    with StopSignals() as signals:
        for directory, one in runs:
            signal = peers.first_of(signals.received)
            if signal is not None:
                done = f"{len(summaries)} of {len(runs)} seeds are trained in {workdir}"
                raise Stopped(f"{signal}: {done}; run the same command to go on")
            output.say(f"seed {one.run.seed}, {len(summaries) + 1} of {len(runs)}: {directory}")
            try:
                summaries[str(one.run.seed)] = train_to_the_end(
                    one, directory, mesh, compiler=compiler, peers=peers, dataset=dataset, extend=extend
                )
            finally:
                if has_begun(directory):  # no mistake was found in the settings
                    output.record(DatasetRecord.of(dataset))
    if not output.lead:
        return {}
    summary = {
        "split": summaries[str(experiment.run.seed)]["split"],
        **over_seeds(_figures(each["final"]) for each in summaries.values()),
        "seconds": sum(each["seconds"] for each in summaries.values()),
        "seeds": summaries,
    }
    write_json(workdir / "summary.json", summary)
    return summary


def _figures(line: Mapping[str, float]) -> dict[str, float]:
    """Returns what was measured, without the step and the epoch."""
    return {name: value for name, value in line.items() if "/" in name}
