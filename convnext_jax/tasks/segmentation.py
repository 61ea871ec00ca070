"""Segmentation: a class for each pixel, by a weighted sum of losses; IoU, Dice and accuracy over all pixels."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.source import MaskedLabels
from convnext_jax.tasks.pixel_losses import (
    dice_loss,
    focal_loss,
    lovasz_loss,
    pixel_cross_entropies,
    pixel_cross_entropy,
    valid_pixels,
)

LOSSES = ("cross_entropy", "dice", "focal", "lovasz")


@dataclasses.dataclass(frozen=True)
class PixelLoss:
    """A weighted sum of losses.

    Attributes:
      terms: names of `LOSSES`, each with its weight.
      label_smoothing: of the cross-entropy; see `convnext_jax.tasks.pixel_losses.pixel_cross_entropies`.
      dice_smoothing: see `convnext_jax.tasks.pixel_losses.dice_loss`.
      dice_over_batch: the same.
      dice_background: the same.
      focal_gamma: see `convnext_jax.tasks.pixel_losses.focal_loss`.
    """

    terms: tuple[tuple[str, float], ...] = (("cross_entropy", 1.0),)
    label_smoothing: float = 0.0
    dice_smoothing: float = 1.0
    dice_over_batch: bool = False
    dice_background: bool = True
    focal_gamma: float = 2.0

    def __call__(self, logits: jax.Array, masks: jax.Array) -> jax.Array:
        """Logits float32 [B,H,W,K] and classes [B,H,W] -> float32 [B]."""
        terms = [weight * self._term(name, logits, masks) for name, weight in self.terms]
        return jnp.stack(terms).sum(0)

    def _term(self, name: str, logits: jax.Array, masks: jax.Array) -> jax.Array:
        if name == "cross_entropy":
            return pixel_cross_entropy(logits, masks, self.label_smoothing)
        if name == "focal":
            return focal_loss(logits, masks, self.focal_gamma)
        if name == "lovasz":
            return lovasz_loss(logits, masks)
        return dice_loss(
            logits,
            masks,
            smoothing=self.dice_smoothing,
            over_batch=self.dice_over_batch,
            background=self.dice_background,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentationSums:
    """Sums over pixels, which add up exactly over batches, devices and processes.

    Attributes:
      confusion: how many pixels of each class, the rows, were taken for each class, the columns; int32 [K,K].
      loss: sum of the cross-entropy of all pixels without label smoothing, in nats.
      count: how many examples there are.
    """

    confusion: jax.Array
    loss: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """The task of giving each pixel a class; see `convnext_jax.tasks.interface.Task`.

    Attributes:
      num_classes: K.
      pixel_loss: what is minimized.
      head: what returns the logits, one of `convnext_jax.models.segmentation.HEADS`.
      head_channels: of the head; None takes its own.
      auxiliary_weight: of the loss of the auxiliary head. 0.4 is mmsegmentation's.
    """

    num_classes: int
    pixel_loss: PixelLoss = PixelLoss()
    head: str = "fpn"
    head_channels: int | None = None
    auxiliary_weight: float = 0.4

    @property
    def network(self) -> Mapping[str, Any]:
        """See `Task`."""
        return {
            "task": "segmentation",
            "num_classes": self.num_classes,
            "head": self.head,
            "head_channels": self.head_channels,
        }

    @property
    def metrics(self) -> Mapping[str, bool]:
        """Mean IoU, mean Dice and pixel accuracy, which are better higher, and the loss."""
        return {"mean_iou": True, "dice": True, "pixel_accuracy": True, "loss": False}

    def targets(self, labels: MaskedLabels) -> jax.Array:
        """Returns the classes of the pixels, [B,H,W]."""
        return labels.masks

    def loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the weighted sum of the losses, float32 [B]."""
        return self.pixel_loss(outputs, targets)

    def auxiliary_loss(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """See `Task`; that of the auxiliary head's pixels."""
        return self.loss(outputs, targets)

    def training_metrics(self, outputs: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
        """Returns ``pixel_accuracy``, over all valid pixels of the batch."""
        valid = valid_pixels(targets)
        right = valid & (outputs.argmax(-1) == targets)
        return {"pixel_accuracy": right.sum() / jnp.maximum(valid.sum(), 1).astype(jnp.float32)}

    def sums(self, outputs: jax.Array, labels: MaskedLabels, mask: jax.Array) -> SegmentationSums:
        """Returns the sums of a batch.

        Args:
          outputs: logits, float32 [B,H,W,K].
          labels: with masks, uint8 [B,H,W].
          mask: bool [B], False for padding.
        """
        masks = labels.masks
        valid = valid_pixels(masks) & mask[:, None, None]
        # One of K where a pixel counts, else none. A class that is NaN everywhere is taken for the first.
        truth = jnp.where(valid[..., None], jax.nn.one_hot(masks, self.num_classes), 0.0)
        taken = jax.nn.one_hot(outputs.argmax(-1), self.num_classes)
        # Whole numbers below 2^24 in float32 for each image, so exact; the sum over images is of integers.
        confusion = jnp.einsum("bhwk,bhwl->bkl", truth, taken).astype(jnp.int32).sum(0)
        losses = jnp.where(mask[:, None, None], pixel_cross_entropies(outputs, masks), 0.0)
        return SegmentationSums(confusion, losses.sum(), mask.sum())

    def summarize(self, sums: SegmentationSums) -> dict[str, float]:
        """Returns ``mean_iou``, ``dice`` and ``pixel_accuracy`` in [0, 1], ``loss`` in nats a pixel, ``examples``."""
        confusion = np.asarray(sums.confusion, np.int64).reshape(-1, self.num_classes, self.num_classes).sum(0)
        figures = confusion_figures(confusion)
        return {
            "mean_iou": figures["mean_iou"],
            "dice": figures["dice"],
            "pixel_accuracy": figures["pixel_accuracy"],
            "loss": float(np.sum(np.asarray(sums.loss, np.float64))) / max(int(confusion.sum()), 1),
            "examples": int(np.sum(np.asarray(sums.count, np.int64))),
        }


@dataclasses.dataclass(frozen=True)
class Overlaps:
    """How many pixels the true and the predicted classes share. Sums over images add up.

    Of a class, with tp its pixels that were found, fp those of others that were taken for it, and fn its pixels that
    were missed: ``IoU = tp / (tp + fp + fn)``, ``Dice = 2 tp / (2 tp + fp + fn)``. A class that is neither in the masks
    nor in the predictions has none, and is left out of the means.

    Attributes:
      right: pixels of each class that were taken for it, [...,K].
      true: its pixels, [...,K].
      predicted: pixels that were taken for it, [...,K]. In none of them ignored pixels count.
    """

    right: np.ndarray
    true: np.ndarray
    predicted: np.ndarray

    def __getitem__(self, index: Any) -> "Overlaps":
        return Overlaps(self.right[index], self.true[index], self.predicted[index])

    @property
    def exists(self) -> np.ndarray:
        """Whether each class is in the masks or in the predictions, bool [...,K]."""
        return self.true + self.predicted > 0

    def iou(self) -> np.ndarray:
        """Returns the IoU of each class, float64 [...,K], 0 of those that do not exist."""
        return self.right / np.maximum(self.true + self.predicted - self.right, 1)

    def dice(self) -> np.ndarray:
        """Returns the Dice coefficient of each class, float64 [...,K], 0 of those that do not exist."""
        return 2 * self.right / np.maximum(self.true + self.predicted, 1)

    def figures(self) -> dict[str, np.ndarray]:
        """Returns ``mean_iou``, ``dice`` and ``pixel_accuracy``, float64 [...]."""
        count = np.maximum(self.exists.sum(-1), 1)
        return {
            "mean_iou": self.iou().sum(-1) / count,
            "dice": self.dice().sum(-1) / count,
            "pixel_accuracy": self.right.sum(-1) / np.maximum(self.true.sum(-1), 1),
        }


def confusion_figures(confusion: np.ndarray) -> dict[str, Any]:
    """Returns the figures that follow from the pixels of each class and what they were taken for; see `Overlaps`.

    >>> confusion_figures(np.array([[3, 1], [0, 4]]))["mean_iou"]
    0.775

    Args:
      confusion: int64 [K,K]; the rows are the true classes, the columns the predicted ones.

    Returns:
      ``mean_iou``, ``dice`` and ``pixel_accuracy``; under ``iou``, ``dice_by_class`` and ``pixels`` a list of K, with
      None for a class that has no figure.
    """
    overlaps = Overlaps(np.diag(confusion), confusion.sum(1), confusion.sum(0))
    of_classes = {"iou": overlaps.iou(), "dice_by_class": overlaps.dice()}
    return {
        **{name: float(value) for name, value in overlaps.figures().items()},
        **{
            name: [float(value) if exists else None for value, exists in zip(values, overlaps.exists, strict=True)]
            for name, values in of_classes.items()
        },
        "pixels": overlaps.true.tolist(),
    }
