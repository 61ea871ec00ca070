"""A trained network that gives each pixel of a picture a class: ``convnext_jax.evaluate.segmenter.load(workdir)``."""

from pathlib import Path

import numpy as np
from scipy.special import softmax

from convnext_jax.errors import UserError
from convnext_jax.evaluate.preprocessing import Preprocessing, preprocessing_of
from convnext_jax.evaluate.segmentation import PixelForward, PixelOutputs, pixel_forward
from convnext_jax.evaluate.trained_network import (
    BATCH_SIZE,
    Pictures,
    TrainedNetwork,
    check_weights_name,
    open_one_seed,
)
from convnext_jax.models.parameters import Tree
from convnext_jax.storage.cloud import to_path


class Segmenter(TrainedNetwork):
    """A trained network, with the classes of its masks and its preprocessing. `load` makes one.

    Args:
      forward: how pixels become masks.
      params: the parameters, on the devices.
      batch_stats: the running statistics, empty if there are none.
      classes: the name of each class of the masks, in the order of their numbers.
      image_classes: the name of each class of the images, if the network classifies them too; else empty.
      preprocess: how a picture becomes pixels.
      batch_size: images at a time, rounded up to a multiple of the devices; it changes no mask.
    """

    def __init__(
        self,
        forward: PixelForward,
        params: Tree,
        batch_stats: Tree,
        *,
        classes: tuple[str, ...],
        image_classes: tuple[str, ...] = (),
        preprocess: Preprocessing,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(forward, params, batch_stats, preprocess=preprocess, batch_size=batch_size)
        self.classes = classes
        self.image_classes = image_classes

    def predict(self, images: Pictures) -> np.ndarray:
        """Returns the class of each pixel, uint8 [N,H,W], at the size that the network sees.

        `Preprocessing.at_full_size` makes one as large as its picture.

        Args:
          images: pixels of the training's size, uint8 [N,H,W,C], or pictures of any size, as paths or Pillow images. A
            single picture counts as a list of one.

        Raises:
          UserError: no image at all, an array of another shape or type, or a picture that cannot be read.
        """
        return self.predict_both(images)[0]

    def predict_both(self, images: Pictures) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the masks, see `predict`, and the probability of each class of the images.

        The probabilities are float32 [N,K], or None if the network does not classify images.
        """
        images = self._checked(images)
        parts: list[PixelOutputs] = [self._run(self._outputs, batch) for _, batch in self._batches(images)]
        masks = np.concatenate([part.masks for part in parts])
        if not self.image_classes:
            return masks, None
        return masks, softmax(np.concatenate([part.image_logits for part in parts]), -1)


def load(
    workdir: str | Path,
    *,
    step: str | int = "latest",
    weights: str = "raw",
    image_size: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Segmenter:
    """Loads a trained network, to segment pictures.

    Args:
      workdir: a workdir of ``train.py``, of one seed, whose run learned from masks.
      step: which checkpoint: ``latest``, ``best``, or a step.
      weights: which weights of it: ``raw``, or ``ema`` for the moving average.
      image_size: side in pixels that pictures are resized to; None is that of the training.
      batch_size: images at a time; it changes no mask.

    Raises:
      UserError: no such workdir, checkpoint or weights, or a run of a classifier.
    """
    directory = to_path(workdir)
    check_weights_name(weights, image_size)
    if (directory / "model.json").is_file():
        raise UserError(f"{directory} is a folder of weights, and masks need the workdir of a run; give that")
    run = open_one_seed(directory)
    if not run.experiment.task.has_masks:
        raise UserError(
            f"the run in {directory} classifies images and predicts no masks: leave --masks out, or in Python take"
            " convnext_jax.load"
        )
    preprocess = preprocessing_of(run, image_size)
    params, batch_stats = run.restore(run.select(str(step)), weights)
    return Segmenter(
        pixel_forward(run),
        params,
        batch_stats,
        classes=run.record.mask_names,
        image_classes=run.record.class_names if run.experiment.task.name == "multitask" else (),
        preprocess=preprocess,
        batch_size=batch_size,
    )
