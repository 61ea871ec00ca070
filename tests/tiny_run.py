"""A workdir with checkpoints of tiny networks, without any training."""

from pathlib import Path
from typing import Any

from networks import TINY
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.config import Experiment
from convnext_jax.models import split_model
from convnext_jax.models.interface import Architecture, Model
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.dataset_record import DatasetRecord

STEPS = (5, 10)
EMA_SEED = 99  # of the network that stands for the moving average


def run_model(seed: int = STEPS[-1], architecture: Architecture = TINY) -> Model:
    """The network that the checkpoint of the step ``seed`` holds."""
    return tiny_model(architecture=architecture, seed=seed)


def write_run(
    workdir: Path,
    experiment: Experiment | None = None,
    *,
    architecture: Architecture = TINY,
    record: DatasetRecord | None = None,
) -> Path:
    """Makes a run with a checkpoint for each of `STEPS`."""
    write_claim(workdir, experiment or tiny_experiment(architecture))
    (record or DatasetRecord.of(tiny_dataset())).write(workdir)
    with Checkpoints(workdir / "checkpoints", keep_latest=len(STEPS)) as checkpoints:
        for step in STEPS:
            checkpoints.save(step, items(step, architecture), {"test/top1": 1.0 / step})
    return workdir


def items(step: int, architecture: Architecture = TINY) -> dict[str, Any]:
    """What the checkpoint of a step holds."""
    (_, params, batch_stats), (_, ema, ema_batch_stats) = (
        split_model(run_model(seed, architecture)) for seed in (step, EMA_SEED)
    )
    return {"params": params, "batch_stats": batch_stats, "ema": ema, "ema_batch_stats": ema_batch_stats}
