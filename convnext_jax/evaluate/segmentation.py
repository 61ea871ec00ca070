"""Evaluation of a segmentation, also beside a classification: its masks, and the figures that follow from them."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.preprocess import normalize, resize
from convnext_jax.data import Split
from convnext_jax.data.dataset import IGNORED
from convnext_jax.errors import UserError
from convnext_jax.evaluate.boundaries import boundary_sums, boundary_tolerance
from convnext_jax.evaluate.figures import accuracy_figures, class_figures, confusion_counts
from convnext_jax.evaluate.predictions import Forward, Predictor
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.evaluate.selected import AnyEvaluation, Selected, Selection, about_figures
from convnext_jax.evaluate.uncertainty import interval_of_resampled, resampled_sums
from convnext_jax.models.parameters import merge_model
from convnext_jax.models.segmentation import ImageAndPixelLogits
from convnext_jax.tasks.multitask import MultiTask
from convnext_jax.tasks.pixel_losses import pixel_cross_entropies
from convnext_jax.tasks.segmentation import Overlaps, confusion_figures

_INTERVALS = ("mean_iou", "dice", "pixel_accuracy")


class PixelOutputs(NamedTuple):
    """What is kept of the logits of images, which together would be too large.

    Attributes:
      masks: the most probable class of each pixel, the lowest of equals, uint8 [N,H,W].
      losses: the sum of the cross-entropies of the pixels of each image, float32 [N], in nats; None without masks to
        hold against.
      image_logits: float32 [N,K]; None unless the network also classifies images.
    """

    masks: Any
    losses: Any
    image_logits: Any


@dataclasses.dataclass(frozen=True)
class PixelForward(Forward):
    """How pixels become `PixelOutputs`."""

    def __call__(self, params: Any, batch_stats: Any, images: jax.Array, masks: jax.Array | None = None) -> Any:
        """Returns the `PixelOutputs` of a batch.

        Args:
          params: the parameters.
          batch_stats: the running statistics, empty if there are none.
          images: uint8 [B,H,W,C].
          masks: the true classes, uint8 [B,H,W]; None computes no losses.
        """
        model = merge_model(self.definition, params, batch_stats)
        outputs = model(resize(normalize(images, self.normalization), self.image_size))
        image, pixels = outputs if isinstance(outputs, ImageAndPixelLogits) else (None, outputs)
        losses = None if masks is None else pixel_cross_entropies(pixels, masks).sum((1, 2))
        return PixelOutputs(pixels.argmax(-1).astype(jnp.uint8), losses, image)


def pixel_forward(run: SavedRun) -> PixelForward:
    """Returns how the pixels of a run's images become `PixelOutputs`."""
    return PixelForward(**vars(run.forward()))


@dataclasses.dataclass(frozen=True)
class SegmentationEvaluation(AnyEvaluation):
    """An evaluated checkpoint of a segmentation; see `AnyEvaluation`.

    Attributes:
      outputs: the masks, the losses, and the logits of images if there are any.
      overlaps: of each image, int64 [N,K].
    """

    outputs: PixelOutputs
    overlaps: Overlaps

    @property
    def main_figure(self) -> str:
        """See `AnyEvaluation`."""
        return "mean_iou"

    @property
    def averaged(self) -> tuple[str, ...]:
        """See `AnyEvaluation`."""
        of_pixels = ("mean_iou", "dice", "pixel_accuracy", "boundary_f1", "loss")
        of_images = ("pixel_loss", "top1", "top5", "image_loss", "ece", "ece_equal_mass", "brier")
        return of_pixels if self.outputs.image_logits is None else of_pixels + of_images

    def paired(self, other: "SegmentationEvaluation") -> dict[str, Any]:
        """See `AnyEvaluation`."""
        both = np.concatenate([np.stack(dataclasses.astuple(each.overlaps), 1) for each in (self, other)], 1)
        resampled = resampled_sums(both)  # [R,6,K]
        first, second = (
            Overlaps(*np.moveaxis(sums, 1, 0)).figures()["mean_iou"] for sums in np.split(resampled, 2, axis=1)
        )
        return {
            "difference": other.figures["mean_iou"] - self.figures["mean_iou"],
            "interval": interval_of_resampled(second - first),
            "method": "paired bootstrap",
        }


def evaluate_masks(selected: Selected, selection: Selection) -> list[SegmentationEvaluation]:
    """Evaluates checkpoints of a segmentation, also beside a classification, on a whole split.

    Args:
      selected: the checkpoints and their data.
      selection: what was asked for.

    Raises:
      UserError: views of the images are asked for.
    """
    if selection.tta != "none":
        raise UserError(f"--tta {selection.tta} is for classification: a mask of several views is not averaged")
    predictor = Predictor(pixel_forward(selected.runs[0]), selection.batch_size)
    examples = selected.runs[0].examples(selected.dataset, selection.split)
    evaluations = []
    for run, step in zip(selected.runs, selected.steps, strict=True):
        params, batch_stats = run.restore(step, selection.weights)
        title = f"evaluating {run.workdir.name}"
        outputs = predictor(params, batch_stats, examples.images, _masks(examples), title=title)
        figures, overlaps = mask_figures(run, examples, outputs)
        figures |= about_figures(run, step, selection, examples, params)
        evaluations.append(
            SegmentationEvaluation(
                run, step, selection, predictor, params, batch_stats, examples, figures, outputs, overlaps
            )
        )
    return evaluations


def _masks(examples: Split) -> np.ndarray:
    assert examples.masks is not None, "the record of a run with masks names their classes, so the data have some"
    return examples.masks


def mask_figures(run: SavedRun, examples: Split, outputs: PixelOutputs) -> tuple[dict[str, Any], Overlaps]:
    """Returns all figures of predicted masks, and the overlaps of each image.

    Args:
      run: the run that they are of.
      examples: what they were predicted for, N examples.
      outputs: what was predicted.
    """
    names, truth = run.record.mask_names, _masks(examples)
    confusion, overlaps = confusion_of(truth, outputs.masks, len(names))
    summed = confusion_figures(confusion)
    pixels = max(int(confusion.sum()), 1)
    boundaries = boundary_sums(truth, outputs.masks, len(names)).f1()
    known = [value for value in boundaries if value is not None]
    figures: dict[str, Any] = {name: summed[name] for name in _INTERVALS}
    figures["boundary_f1"] = float(np.mean(known)) if known else None
    figures["boundary_tolerance"] = boundary_tolerance(*truth.shape[1:])
    figures["loss"] = float(np.sum(outputs.losses, dtype=np.float64)) / pixels
    figures["intervals"] = _intervals(overlaps)
    if outputs.image_logits is not None:
        assert isinstance(run.task, MultiTask), "no other task has logits of images"
        figures |= _of_images(run, examples.labels, outputs.image_logits, figures)
    figures["per_class"] = {
        name: {"iou": iou, "dice": dice, "boundary_f1": boundary, "pixels": count}
        for name, iou, dice, boundary, count in zip(
            names, summed["iou"], summed["dice_by_class"], boundaries, summed["pixels"], strict=True
        )
    }
    figures["confusion"] = confusion.tolist()
    return figures, overlaps


def confusion_of(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> tuple[np.ndarray, Overlaps]:
    """Counts the pixels of each class and what they were taken for, without those that are ignored.

    Args:
      truth: classes in [0, K) or `IGNORED`, uint8 [N,H,W].
      predicted: classes in [0, K), uint8 [N,H,W].
      num_classes: K.

    Returns:
      The counts over all images, int64 [K,K], a row for each true class, and the overlaps of each image, int64 [N,K].
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    overlaps = Overlaps(*np.zeros((3, len(truth), num_classes), np.int64))
    for number, (true, taken) in enumerate(zip(truth, predicted, strict=True)):  # one at a time: K x K may be large
        valid = true != IGNORED
        counts = confusion_counts(taken[valid], true[valid], num_classes)
        confusion += counts
        overlaps.right[number], overlaps.true[number] = np.diag(counts), counts.sum(1)
        overlaps.predicted[number] = counts.sum(0)
    return confusion, overlaps


def _intervals(overlaps: Overlaps) -> dict[str, list[float]]:
    """Returns the 95% bootstrap intervals over the images, by figure; none of a single image."""
    each = np.stack(dataclasses.astuple(overlaps), 1)  # [N,3,K]
    if len(each) < 2:
        return {}
    resampled = Overlaps(*np.moveaxis(resampled_sums(each), 1, 0)).figures()
    return {name: interval_of_resampled(resampled[name]) for name in _INTERVALS}


def _of_images(run: SavedRun, labels: np.ndarray, logits: np.ndarray, figures: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of the classification, and the loss of both tasks together, as in training."""
    of_images = accuracy_figures(logits, labels)
    intervals = of_images.pop("intervals", {})
    image_loss, pixel_loss = of_images.pop("loss"), figures["loss"]
    interval = {"image_loss": intervals.pop("loss")} if intervals else {}
    names = run.record.class_names
    return of_images | {
        "loss": pixel_loss + run.experiment.task.classification_weight * image_loss,
        "pixel_loss": pixel_loss,
        "image_loss": image_loss,
        "intervals": figures["intervals"] | intervals | interval,
        "per_image_class": class_figures(logits.argmax(-1), labels, names),
    }
