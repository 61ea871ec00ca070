"""A run that diverged, taken back to its last good checkpoint with a lower learning rate."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from convnext_jax.config import Experiment
from convnext_jax.data import Dataset
from convnext_jax.run.loop import train
from convnext_jax.run.output import Output
from convnext_jax.run.peers import ALONE, Peers
from convnext_jax.run.prepare import prepare
from convnext_jax.run.reporter import Diverged
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.rollbacks import Rollback, read_rollbacks


def train_to_the_end(
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh,
    *,
    compiler: StepCompiler,
    peers: Peers = ALONE,
    dataset: Dataset | None = None,
    extend: bool = False,
) -> dict[str, Any]:
    """Prepares a run and trains it to its end, over as many rollbacks as the settings allow.

    See ``prepare`` for the arguments and the mistakes, and ``train`` for what is returned and raised.
    """

    # A function, so that no name holds the data of a run on the devices while the next is prepared.
    def train_once() -> dict[str, Any]:
        with prepare(experiment, workdir, mesh, compiler=compiler, peers=peers, dataset=dataset, extend=extend) as run:
            return train(run)

    while True:
        try:
            return train_once()
        except Diverged as diverged:
            if not peers.of_lead(peers.lead and _roll_back(experiment, Output(workdir), diverged)):
                raise


def _roll_back(experiment: Experiment, output: Output, diverged: Diverged) -> bool:
    """Records that the run goes on from its last checkpoint, and says so. Returns False if it may not."""
    settings = experiment.run
    if settings.on_divergence != "rollback":
        return False
    done = read_rollbacks(output.workdir)
    if len(done) >= settings.rollbacks:
        return False
    rollback = Rollback(diverged.step, diverged.kept, settings.rollback_factor)
    output.record_rollbacks([*done, rollback])
    output.say(
        f"{diverged.reason}; going back to step {rollback.from_step} with {settings.rollback_factor:g} times the"
        f" learning rate, rollback {len(done) + 1} of at most {settings.rollbacks}"
    )
    return True
