"""Evaluation of a checkpoint on a whole split: its logits, and the figures that follow from them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax import data
from convnext_jax.data import Dataset, Split
from convnext_jax.data.dataset import Images
from convnext_jax.errors import UserError, writing
from convnext_jax.evaluate.calibration import fit_temperature
from convnext_jax.evaluate.figures import accuracy_figures, class_figures, superclass_figures
from convnext_jax.evaluate.predictions import Change, Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.memory import device_text
from convnext_jax.models.parameters import count_parameters
from convnext_jax.storage.files import write_json
from convnext_jax.workdir.claim import read_experiment, seed_runs


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


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluated checkpoint.

    Attributes:
      run: the run that it is of.
      step: its step.
      selection: what was asked for.
      predictor: computed the logits.
      params: the parameters.
      batch_stats: the running statistics.
      examples: what it was evaluated on, N examples.
      logits: float32 [N,K].
      temperature: what fits the confidence best on examples held out of the training; None if there are none.
      figures: what ``evaluation.json`` holds.
    """

    run: SavedRun
    step: int
    selection: Selection
    predictor: Predictor
    params: Any
    batch_stats: Any
    examples: Split
    logits: np.ndarray
    temperature: float | None
    figures: dict[str, Any]

    @property
    def predicted(self) -> np.ndarray:
        """The class that each example was taken for, int64 [N]."""
        return self.logits.argmax(-1)

    @property
    def correct(self) -> np.ndarray:
        """Whether each example was taken for what it is, bool [N]."""
        return self.predicted == self.examples.labels

    def predict(self, images: Images, change: Change | None = None) -> np.ndarray:
        """Returns the classes that other images, uint8 [N,H,W,C], are taken for, int64 [N]; see `Predictor`."""
        return self.predictor(self.params, self.batch_stats, images, change=change).argmax(-1)


def evaluate_workdir(workdir: Path, selection: Selection = Selection()) -> list[Evaluation]:
    """Evaluates a checkpoint, or with several seeds the one of each.

    Args:
      workdir: a workdir of ``train.py``.
      selection: what of it is evaluated, and how.

    Raises:
      UserError: no workdir, no such checkpoint, weights or split, or data that are missing or others than those trained
        on.
    """
    experiment = read_experiment(workdir)
    runs = [
        SavedRun.open(directory, data_dir=selection.data_dir, dtype=selection.dtype)
        for directory, _ in seed_runs(workdir, experiment)
    ]
    steps = [run.select(selection.step) for run in runs]
    if selection.step == "latest" and len(set(steps)) > 1:
        raise UserError(
            f"{workdir}: the latest checkpoints of its seeds are of different steps ({', '.join(map(str, steps))});"
            f" train them to the end, or evaluate one: --workdir {runs[0].workdir}"
        )
    runs[0].check_weights(selection.weights)
    dataset = data.load(runs[0].experiment.data)  # the seeds have the same data
    runs[0].examples(dataset, selection.split)  # a split that is not there is said to be that
    runs[0].check_same_data(dataset, may_have_changed=selection.data_changed)
    predictor = Predictor(runs[0].forward(selection.tta), selection.batch_size)
    return [
        evaluate_parameters(run, step, selection, predictor, dataset, run.restore(step, selection.weights))
        for run, step in zip(runs, steps, strict=True)
    ]


def evaluate_parameters(
    run: SavedRun,
    step: int,
    selection: Selection,
    predictor: Predictor,
    dataset: Dataset,
    restored: tuple[Any, Any],
) -> Evaluation:
    """Evaluates parameters of a run on a whole split of its data.

    Args:
      run: the run.
      step: that they are of.
      selection: what they are, and on which split they are evaluated.
      predictor: computes the logits.
      dataset: the data of the run.
      restored: the parameters and the running statistics, on the devices.
    """
    params, batch_stats = restored
    examples = run.examples(dataset, selection.split)
    logits = predictor(params, batch_stats, examples.images, title=f"evaluating {run.workdir.name}")
    figures = accuracy_figures(logits, examples.labels)
    temperature = None
    if dataset.validation is not None and selection.split != "validation":
        held_out = dataset.validation
        temperature = fit_temperature(predictor(params, batch_stats, held_out.images), held_out.labels)
        scaled = accuracy_figures(logits / np.float32(temperature), examples.labels, intervals=False)
        figures["temperature_scaling"] = {
            "temperature": temperature,
            "fitted_on": "validation",
            "fitted_on_examples": len(held_out),
            **{name: scaled[name] for name in ("loss", "brier", "ece", "ece_equal_mass")},
        }
    predicted, names = logits.argmax(-1), run.record.class_names
    figures |= {
        "examples": len(examples),
        "parameters": count_parameters(params),
        "macs": run.macs(examples.images.shape[1:3]),
        "tta": selection.tta,
        "model": run.experiment.model.name,
        "dataset": run.record.name,
        "split": selection.split,
        "dtype": run.precision.compute,
        "device": device_text(),
        "step": step,
        "weights": selection.weights,
        "per_class": class_figures(predicted, examples.labels, names),
        "per_superclass": superclass_figures(predicted, examples.labels, names),
    }
    return Evaluation(run, step, selection, predictor, params, batch_stats, examples, logits, temperature, figures)


def summary_of(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Returns what ``evaluation.json`` holds: the figures of one run, or of several seeds.

    Of several seeds these are ``mean`` and ``std``, the sample standard deviation, of each figure, and under ``seeds``
    the figures of each.
    """
    if len(evaluations) == 1:
        return evaluations[0].figures
    names = ("top1", "top5", "loss", "brier", "ece", "ece_equal_mass")
    return over_seeds({name: each.figures[name] for name in names} for each in evaluations) | {
        "split": evaluations[0].selection.split,
        "seeds": {str(each.run.experiment.run.seed): each.figures for each in evaluations},
    }


def write_evaluation(summary: dict[str, Any], directory: Path) -> Path:
    """Writes ``evaluation.json`` into a folder, created if it does not exist, and returns its path."""
    path = directory / "evaluation.json"
    with writing(path, "--output"):
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, summary)
    return path
