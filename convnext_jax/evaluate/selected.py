"""What all evaluations have in common: the checkpoints that are asked for, their data, and what they are about."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax import data
from convnext_jax.data import Dataset, Split
from convnext_jax.errors import UserError
from convnext_jax.evaluate.predictions import Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.memory import device_text
from convnext_jax.models.parameters import count_parameters
from convnext_jax.workdir.claim import has_begun, read_experiment, seed_runs


@dataclasses.dataclass(frozen=True)
class Selection:
    """What of a run is evaluated, and how.

    Attributes:
      step: ``latest``, ``best`` or a step.
      weights: ``raw``, or ``ema`` for the moving average.
      split: ``test``, ``train``, or ``validation`` if the run held out one.
      data_dir: where the data are on this machine; None is where the config says.
      data_changed: whether the data may be others than those trained on. The classes may not.
      dtype: what to compute in; None is what the config says.
      batch_size: images at a time; None takes what fits. It changes no figure.
      tta: the views of an image that are averaged, a name of `convnext_jax.evaluate.views.VIEWS`.
    """

    step: str = "latest"
    weights: str = "raw"
    split: str = "test"
    data_dir: str | None = None
    data_changed: bool = False
    dtype: str | None = None
    batch_size: int | None = None
    tta: str = "none"


DEFAULT = Selection()


@dataclasses.dataclass(frozen=True)
class Selected:
    """Checkpoints of a run, one for each of its seeds, and their data.

    Attributes:
      runs: one for each seed.
      steps: of the checkpoint of each.
      dataset: the data, which the seeds have in common.
    """

    runs: Sequence[SavedRun]
    steps: Sequence[int]
    dataset: Dataset


@dataclasses.dataclass(frozen=True)
class AnyEvaluation:
    """An evaluated checkpoint, of whatever task.

    Attributes:
      run: the run that it is of.
      step: its step.
      selection: what was asked for.
      predictor: computed the outputs.
      params: the parameters.
      batch_stats: the running statistics.
      examples: what it was evaluated on, N examples.
      figures: what ``evaluation.json`` holds.
    """

    run: SavedRun
    step: int
    selection: Selection
    predictor: Predictor
    params: Any
    batch_stats: Any
    examples: Split
    figures: dict[str, Any]

    @property
    def main_figure(self) -> str:
        """The name of the figure that evaluations are compared by."""
        raise NotImplementedError

    @property
    def averaged(self) -> tuple[str, ...]:
        """The names of the figures whose mean over seeds makes sense."""
        raise NotImplementedError

    def paired(self, other: Any) -> dict[str, Any]:
        """Compares another evaluation with this one, which is of the same examples and the same task.

        Returns:
          ``difference`` of the main figure, of the other less this one, its 95% ``interval`` over the examples, and
          ``method``.
        """
        raise NotImplementedError


def select(workdir: Path, selection: Selection) -> Selected:
    """Opens a run, or with several seeds each of them, with the data that they are evaluated on.

    Args:
      workdir: a workdir of ``train.py``.
      selection: what of it is evaluated, and how.

    Raises:
      UserError: no workdir, no such checkpoint, weights or split, or data that are missing or others than those trained
        on.
    """
    directories = [directory for directory, _ in seed_runs(workdir, read_experiment(workdir))]
    if len(directories) > 1:
        _check_all_have_begun(workdir, directories)
    runs = [SavedRun.open(directory, data_dir=selection.data_dir, dtype=selection.dtype) for directory in directories]
    steps = [run.select(selection.step) for run in runs]
    if selection.step == "latest" and len(set(steps)) > 1:
        raise UserError(
            f"{workdir}: the latest checkpoints of its seeds are of different steps ({', '.join(map(str, steps))});"
            f" train them to the end, or evaluate one: --workdir {runs[0].workdir}"
        )
    runs[0].check_weights(selection.weights)
    dataset = runs[0].of_task(data.load(runs[0].experiment.data))
    runs[0].examples(dataset, selection.split)  # a split that is not there is said to be that
    runs[0].check_same_data(dataset, may_have_changed=selection.data_changed)
    return Selected(runs, steps, dataset)


def _check_all_have_begun(workdir: Path, seeds: Sequence[Path]) -> None:
    begun = [str(directory) for directory in seeds if has_begun(directory)]
    missing = [directory.name for directory in seeds if not has_begun(directory)]
    if missing:
        those_there = f", or evaluate the seeds that there are: --workdir {' '.join(begun)}" if begun else ""
        raise UserError(
            f"{workdir}: of its {len(seeds)} seeds {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} not"
            f" started; run the training again{those_there}"
        )


def about_figures(run: SavedRun, step: int, selection: Selection, examples: Split, params: Any) -> dict[str, Any]:
    """Returns what figures are about: the data, the network and its costs, the checkpoint, and the device."""
    return {
        "examples": len(examples),
        "parameters": count_parameters(params),
        "macs": run.macs(examples.images.shape[1:3]),
        "model": run.experiment.model.name,
        "dataset": run.record.name,
        "split": selection.split,
        "dtype": run.precision.compute,
        "device": device_text(),
        "step": step,
        "weights": selection.weights,
    }


def same_examples(first: AnyEvaluation, second: AnyEvaluation) -> bool:
    """Returns whether two evaluations are of the same examples, as far as their labels and masks tell."""
    one, other = first.examples, second.examples
    same_masks = one.masks is None and other.masks is None
    if one.masks is not None and other.masks is not None:
        same_masks = np.array_equal(one.masks, other.masks)
    return first.run.record.name == second.run.record.name and np.array_equal(one.labels, other.labels) and same_masks
