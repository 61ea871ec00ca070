"""Evaluation of a checkpoint on a whole split: its outputs, and the figures that follow from them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convnext_jax.data import Dataset
from convnext_jax.data.dataset import Images
from convnext_jax.errors import writing
from convnext_jax.evaluate.calibration import fit_temperature
from convnext_jax.evaluate.figures import accuracy_figures, class_figures, ranks, superclass_figures
from convnext_jax.evaluate.predictions import Change, Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.evaluate.segmentation import SegmentationEvaluation, evaluate_masks
from convnext_jax.evaluate.selected import DEFAULT, AnyEvaluation, Selection, about_figures, select
from convnext_jax.evaluate.uncertainty import paired_comparison
from convnext_jax.storage.files import write_json


@dataclasses.dataclass(frozen=True)
class Evaluation(AnyEvaluation):
    """An evaluated checkpoint of a classifier; see `AnyEvaluation`.

    Attributes:
      logits: float32 [N,K].
      temperature: what fits the confidence best on examples held out of the training; None if there are none.
    """

    logits: np.ndarray
    temperature: float | None

    @property
    def main_figure(self) -> str:
        """See `AnyEvaluation`."""
        return "top1"

    @property
    def averaged(self) -> tuple[str, ...]:
        """See `AnyEvaluation`."""
        return ("top1", "top5", "loss", "brier", "ece", "ece_equal_mass")

    @property
    def predicted(self) -> np.ndarray:
        """The class that each example was taken for, int64 [N]."""
        return self.logits.argmax(-1)

    @property
    def correct(self) -> np.ndarray:
        """Whether each example was taken for what it is, bool [N]; never with a NaN among its logits."""
        return ranks(self.logits, self.examples.labels) < 1

    def predict(self, images: Images, change: Change | None = None) -> np.ndarray:
        """Returns the classes that other images, uint8 [N,H,W,C], are taken for, int64 [N]; see `Predictor`."""
        return self.predictor(self.params, self.batch_stats, images, change=change).argmax(-1)

    def paired(self, other: "Evaluation") -> dict[str, Any]:
        """See `AnyEvaluation`; with more of `convnext_jax.evaluate.uncertainty.paired_comparison`."""
        return paired_comparison(self.correct, other.correct) | {"method": "McNemar, paired bootstrap"}


def evaluate_workdir(workdir: Path, selection: Selection = DEFAULT) -> list[Evaluation] | list[SegmentationEvaluation]:
    """Evaluates a checkpoint, or with several seeds the one of each.

    Args:
      workdir: a workdir of ``train.py``.
      selection: what of it is evaluated, and how.

    Raises:
      UserError: no workdir, no such checkpoint, weights or split, data that are missing or others than those trained
        on, or views of the images (``selection.tta``) of a segmentation.
    """
    selected = select(workdir, selection)
    run = selected.runs[0]
    if run.experiment.task.has_masks:
        return evaluate_masks(selected, selection)
    predictor = Predictor(run.forward(selection.tta), selection.batch_size)
    return [
        evaluate_parameters(run, step, selection, predictor, selected.dataset, run.restore(step, selection.weights))
        for run, step in zip(selected.runs, selected.steps, strict=True)
    ]


def evaluate_parameters(
    run: SavedRun,
    step: int,
    selection: Selection,
    predictor: Predictor,
    dataset: Dataset,
    restored: tuple[Any, Any],
) -> Evaluation:
    """Evaluates parameters of a classifier's run on a whole split of its data.

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
    figures |= about_figures(run, step, selection, examples, params) | {
        "tta": selection.tta,
        "per_class": class_figures(predicted, examples.labels, names),
        "per_superclass": superclass_figures(predicted, examples.labels, names),
    }
    return Evaluation(run, step, selection, predictor, params, batch_stats, examples, figures, logits, temperature)


def summary_of(evaluations: Sequence[AnyEvaluation]) -> dict[str, Any]:
    """Returns what ``evaluation.json`` holds: the figures of one run, or of several seeds.

    Of several seeds these are ``mean`` and ``std``, the sample standard deviation, of each figure, and under ``seeds``
    the figures of each.
    """
    if len(evaluations) == 1:
        return evaluations[0].figures
    names = [name for name in evaluations[0].averaged if all(each.figures[name] is not None for each in evaluations)]
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
