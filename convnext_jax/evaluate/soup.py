"""A model soup: the mean of the parameters of a run's last checkpoints, which costs nothing to evaluate or serve.

Reference:
  Wortsman et al., `Model soups <https://arxiv.org/abs/2203.05482>`_, 2022; of one run's checkpoints, Izmailov et al.,
  `Averaging Weights Leads to Wider Optima <https://arxiv.org/abs/1803.05407>`_, 2018.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convnext_jax import data
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import evaluate_parameters
from convnext_jax.evaluate.predictions import Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.evaluate.selected import Selection
from convnext_jax.models.weights import ModelFolder
from convnext_jax.workdir.claim import read_experiment


def make_soup(
    workdir: Path,
    *,
    last: int,
    split: str | None = None,
    data_dir: str | None = None,
    batch_size: int | None = None,
) -> tuple[ModelFolder, dict[str, Any]]:
    """Averages the parameters of the last checkpoints of a run and evaluates the mean on a whole split.

    Args:
      workdir: a workdir of ``train.py``, of one seed.
      last: how many checkpoints, each with the same weight.
      split: ``test``, ``train``, or ``validation``. None is the one that the training evaluated, so that a number of
        checkpoints that is tried out is not tuned on test.
      data_dir: where the data are on this machine; None is where the config says.
      batch_size: images at a time; None takes what fits.

    Returns:
      Weights that ``config.model.init_from`` takes, and the report: the figures of ``evaluation.json`` and, under
      ``checkpoints``, the steps that went in.

    Raises:
      UserError: no such checkpoints, a model with BatchNorm, or what ``evaluate_workdir`` raises.
    """
    experiment = read_experiment(workdir)
    if experiment.run.seeds > 1:
        raise UserError(
            f"{workdir} holds {experiment.run.seeds} seeds, and a soup is of one run's checkpoints; take one of them:"
            f" --workdir {workdir}/seed_{experiment.run.seed}"
        )
    if experiment.task.has_masks:
        raise UserError(
            f"{workdir}: a soup is of a classifier, and config.task.name={experiment.task.name} here; for averaged"
            " weights train with config.optim.ema_decay=0.999 and evaluate with --weights ema"
        )
    run = SavedRun.open(workdir, data_dir=data_dir, dtype=None)
    if jax.tree.leaves(run.model.batch_stats):
        raise UserError(
            f"{workdir}: the model {experiment.model.name} has BatchNorm, and the mean of its running statistics would"
            " not be those of the averaged network; only a model without it can be averaged"
        )
    steps = _last_steps(run, last)
    params = jax.tree.map(lambda total: (total / last).astype(np.float32), _sum_of_params(run, steps))
    on_devices = jax.device_put(params, run.sharding.replicated)
    dataset = run.of_task(data.load(run.experiment.data))
    run.check_same_data(dataset)
    selection = Selection(weights="soup", split=split or dataset.evaluated[0], data_dir=data_dir)
    predictor = Predictor(run.forward(), batch_size)
    figures = evaluate_parameters(run, steps[-1], selection, predictor, dataset, (on_devices, {})).figures
    soup = ModelFolder(
        params=params,
        batch_stats={},
        model=experiment.model.name,
        architecture=dataclasses.asdict(experiment.model.architecture),
        class_names=run.record.class_names,
        mean=run.record.mean,
        std=run.record.std,
        source=f"the mean of the checkpoints at steps {', '.join(map(str, steps))} of {workdir}",
        image_size=dataset.train.images.shape[1:3],
        network_size=run.experiment.run.evaluation_size,
    )
    return soup, figures | {"workdir": str(workdir), "checkpoints": steps}


def _last_steps(run: SavedRun, last: int) -> list[int]:
    settings = run.experiment.run
    kept = settings.keep_latest
    with run.checkpoints() as checkpoints:
        steps = [step for step in checkpoints.steps() if checkpoints.metrics(step)]
    # Beyond keep_latest there may be a best checkpoint, from long before.
    if last > min(kept, len(steps)):
        remedy = f"train with --config.run.keep_latest={last}"
        if last <= kept:  # there were too few evaluations
            more_often = settings.eval_every_epochs > 1
            remedy = f"train with {'a lower config.run.eval_every_epochs' if more_often else 'more config.run.epochs'}"
        fewer = ", or take fewer" if min(kept, len(steps)) > 1 else ""
        raise UserError(
            f"--last {last}: {run.workdir} has {len(steps)} evaluated checkpoint{'s' * (len(steps) != 1)} and keeps the"
            f" latest {kept}; {remedy}{fewer}"
        )
    return steps[-last:]


def _sum_of_params(run: SavedRun, steps: Sequence[int]) -> Any:
    """Returns the sum over checkpoints, float64, on the host."""
    total = None
    for step in steps:
        params, _ = run.restore(step)
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        total = params if total is None else jax.tree.map(np.add, total, params)
    return total
