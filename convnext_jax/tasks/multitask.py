"""Two tasks on one backbone: a class for the image, and one for each pixel."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from convnext_jax.batches.source import MaskedLabels
from convnext_jax.models.segmentation import ImageAndPixelLogits
from convnext_jax.tasks.classification import Classification, MixedLabels
from convnext_jax.tasks.segmentation import Segmentation


class ImageAndPixelTargets(NamedTuple):
    """The targets of both tasks.

    Attributes:
      image: the classes of the images.
      pixels: the classes of the pixels, [B,H,W].
    """

    image: MixedLabels
    pixels: jax.Array


@dataclasses.dataclass(frozen=True)
class MultiTask:
    """Classification and segmentation at once; see `convnext_jax.tasks.interface.Task`.

    The loss is that of the segmentation, plus the weighted one of the classification.

    Attributes:
      classification: of the images.
      segmentation: of the pixels.
      classification_weight: of the first one's loss.
    """

    classification: Classification
    segmentation: Segmentation
    classification_weight: float = 1.0

    @property
    def network(self) -> Mapping[str, Any]:
        """See `Task`."""
        return {
            **self.segmentation.network,
            "task": "multitask",
            "num_classes": self.classification.num_classes,
            "pixel_classes": self.segmentation.num_classes,
        }

    @property
    def metrics(self) -> Mapping[str, bool]:
        """Those of both, with one loss."""
        return {**self.segmentation.metrics, **self.classification.metrics}

    @property
    def auxiliary_weight(self) -> float:
        """That of the segmentation's auxiliary head."""
        return self.segmentation.auxiliary_weight

    def targets(self, labels: MaskedLabels) -> ImageAndPixelTargets:
        """Returns the targets of both tasks."""
        return ImageAndPixelTargets(self.classification.targets(labels.labels), self.segmentation.targets(labels))

    def loss(self, outputs: ImageAndPixelLogits, targets: ImageAndPixelTargets) -> jax.Array:
        """Returns the weighted sum of both losses, float32 [B]."""
        of_image = self.classification.loss(outputs.image, targets.image)
        return self.segmentation.loss(outputs.pixels, targets.pixels) + self.classification_weight * of_image

    def auxiliary_loss(self, outputs: jax.Array, targets: ImageAndPixelTargets) -> jax.Array:
        """See `Task`; the auxiliary head knows pixels alone."""
        return self.segmentation.loss(outputs, targets.pixels)

    def training_metrics(self, outputs: ImageAndPixelLogits, targets: ImageAndPixelTargets) -> dict[str, jax.Array]:
        """Returns ``pixel_accuracy`` and ``top1``."""
        return {
            **self.segmentation.training_metrics(outputs.pixels, targets.pixels),
            **self.classification.training_metrics(outputs.image, targets.image),
        }

    def sums(self, outputs: ImageAndPixelLogits, labels: MaskedLabels, mask: jax.Array) -> tuple[Any, Any]:
        """Returns the sums of both; see each."""
        return self.segmentation.sums(outputs.pixels, labels, mask), self.classification.sums(
            outputs.image, labels.labels, mask
        )

    def summarize(self, sums: tuple[Any, Any]) -> dict[str, float]:
        """Returns the figures of both. ``loss`` is the weighted sum of their cross-entropies."""
        of_pixels, of_image = self.segmentation.summarize(sums[0]), self.classification.summarize(sums[1])
        loss = of_pixels["loss"] + self.classification_weight * of_image["loss"]
        return {**of_pixels, **of_image, "loss": loss}
