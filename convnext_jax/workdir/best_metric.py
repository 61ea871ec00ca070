"""The figure that says which checkpoint of a run is the best."""

import dataclasses
import math
from collections.abc import Mapping

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.tasks.interface import Task
from convnext_jax.workdir.metrics_log import EVALUATED_SPLITS, figure_name


@dataclasses.dataclass(frozen=True)
class BestMetric:
    """The figure that says which checkpoint is the best.

    Attributes:
      name: of the figure without its split, such as ``top1``, or ``ema/top1`` for the moving average's.
      higher_is_better: whether it is.
    """

    name: str
    higher_is_better: bool

    def score(self, figures: Mapping[str, float]) -> float:
        """Returns a number that is higher the better the figures are, minus infinity if they lack the metric."""
        for split in EVALUATED_SPLITS:
            if (value := figures.get(figure_name(split, self.name))) is not None:
                return value if self.higher_is_better else -value
        return -math.inf


def best_metric(experiment: Experiment, task: Task) -> BestMetric:
    """Returns the figure that an experiment's checkpoints are chosen by.

    Raises:
      UserError: the configuration names one that the task does not have, or that of a moving average that is not kept.
    """
    name = experiment.run.best_metric
    keeps_ema = experiment.optim.ema_decay > 0
    if name == "auto":
        name = f"ema/{next(iter(task.metrics))}" if keeps_ema else next(iter(task.metrics))
    average, _, metric = name.rpartition("/")
    if metric not in task.metrics or average not in ("", "ema"):
        allowed = ", ".join(("auto", *task.metrics, *(f"ema/{each}" for each in task.metrics)))
        raise UserError(f"config.run.best_metric={name!r}: unknown; allowed: {allowed}")
    if average and not keeps_ema:
        raise UserError(f"config.run.best_metric={name!r} needs a moving average; set config.optim.ema_decay")
    return BestMetric(name, task.metrics[metric])
