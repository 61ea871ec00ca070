"""A trained network that classifies pictures: ``convnext_jax.load(workdir)``."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from convnext_jax.batches.preprocess import normalize, resize
from convnext_jax.errors import check
from convnext_jax.evaluate.grad_cam import explainable_stage, grad_cam
from convnext_jax.evaluate.opened_classifier import open_classifier
from convnext_jax.evaluate.predictions import Forward, Predictor
from convnext_jax.evaluate.preprocessing import Preprocessing
from convnext_jax.evaluate.trained_network import (
    BATCH_SIZE,
    Pictures,
    TrainedNetwork,
    padded,
)
from convnext_jax.models.parameters import Tree, merge_model
from convnext_jax.storage.cloud import to_path


class Classifier(TrainedNetwork):
    """A trained network, with its classes and its preprocessing. `load` makes one.

    Args:
      forward: how pixels become logits.
      params: the parameters, on the devices.
      batch_stats: the running statistics, empty if there are none.
      classes: the name of each class, in the order of the probabilities.
      preprocess: how a picture becomes pixels.
      batch_size: images at a time, rounded up to a multiple of the devices; it changes no figure.
    """

    def __init__(
        self,
        forward: Forward,
        params: Tree,
        batch_stats: Tree,
        *,
        classes: tuple[str, ...],
        preprocess: Preprocessing,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        super().__init__(forward, params, batch_stats, preprocess=preprocess, batch_size=batch_size)
        self.classes = classes
        self._features = Predictor(_Features(**vars(forward)), self.batch_size)

    def predict(self, images: Pictures) -> np.ndarray:
        """Returns the probability of each class, float32 [N,K].

        Args:
          images: pixels of the training's size, uint8 [N,H,W,C], or pictures of any size, as paths or Pillow images. A
            single picture counts as a list of one.

        Raises:
          UserError: no image at all, an array of another shape or type, or a picture that cannot be read.
        """
        images = self._checked(images)
        return np.concatenate([softmax(self._run(self._outputs, batch), -1) for _, batch in self._batches(images)])

    def features(self, images: Pictures) -> np.ndarray:
        """Returns what the last linear layer is given for each image, float32 [N,D].

        This is the pooled and normalized map of the last stage for a ConvNeXt, its pooled map for a ResNet, and the
        normalized class token for a ViT.

        Args:
          images: see `predict`.

        Raises:
          UserError: see `predict`.
        """
        images = self._checked(images)
        return np.concatenate([self._run(self._features, batch) for _, batch in self._batches(images)])

    def explain(self, images: Pictures, classes: Any = None, *, stage: int | None = None) -> np.ndarray:
        """Returns which places of each image speak for a class; see `convnext_jax.evaluate.grad_cam.grad_cam`.

        Args:
          images: see `predict`.
          classes: which classes, int [N,k]; None takes the most probable one, k = 1.
          stage: the stage whose map is taken, counted from 1; None takes the last one that has several pixels.

        Returns:
          float32 [N,k,H',W'], 0 or more, on the scale of the logits.

        Raises:
          UserError: see `predict` and `explainable_stage`.
        """
        images, maps = self._checked(images), []
        chosen = self.predict(images).argmax(-1)[:, None] if classes is None else np.asarray(classes)
        right = chosen.ndim == 2 and len(chosen) == len(images) and ((0 <= chosen) & (chosen < len(self.classes))).all()
        check("classes", classes, bool(right), f"[N,k] numbers below {len(self.classes)} for N images")
        stage = self.explainable_stage(stage)
        for start, batch in self._batches(images):
            wanted = chosen[start : start + len(batch)].astype(np.int32)
            given = [padded(array, self.batch_size) for array in (batch, wanted)]
            given = jax.device_put(given, self._forward.sharding.batch)
            maps.append(np.asarray(_explain(*self._state, *given, forward=self._forward, stage=stage))[: len(batch)])
        return np.concatenate(maps)

    def explainable_stage(self, stage: int | None = None) -> int:
        """Returns the stage whose map `explain` takes; see `convnext_jax.evaluate.grad_cam.explainable_stage`."""
        height, width, channels = self.preprocess.shape
        if self._forward.image_size is not None:
            height = width = self._forward.image_size
        model = merge_model(self._forward.definition, *self._state)
        return explainable_stage(model, (height, width, channels), stage)


def load(
    workdir: str | Path,
    *,
    step: str | int = "latest",
    weights: str = "raw",
    image_size: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> Classifier:
    """Loads a trained network, to classify pictures.

    Args:
      workdir: a workdir of ``train.py``, of one seed, or a folder of weights (`convnext_jax.load_model`).
      step: which checkpoint: ``latest``, ``best``, or a step.
      weights: which weights of it: ``raw``, or ``ema`` for the moving average. As in ``evaluate.py``, raw is the
        default.
      image_size: side in pixels that pictures are resized to; None is that of the training. A folder of weights does
        not know it.
      batch_size: images at a time; it changes no figure.

    Raises:
      UserError: no such workdir, checkpoint or weights, a run that predicts masks, or the size of the images is not
        known.
    """
    opened = open_classifier(to_path(workdir), step=step, weights=weights, image_size=image_size)
    return Classifier(
        opened.forward,
        opened.params,
        opened.batch_stats,
        classes=opened.classes,
        preprocess=opened.preprocess,
        batch_size=batch_size,
    )


@dataclasses.dataclass(frozen=True)
class _Features(Forward):
    """How pixels become the input of the last linear layer."""

    def __call__(self, params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        model = merge_model(self.definition, params, batch_stats)
        model.head = _identity
        features = model(resize(normalize(images, self.normalization), self.image_size))
        return features.astype(jnp.float32)


def _identity(x: jax.Array) -> jax.Array:
    return x


@functools.partial(jax.jit, static_argnames=("forward", "stage"))
def _explain(
    params: Tree, batch_stats: Tree, images: jax.Array, classes: jax.Array, *, forward: Forward, stage: int
) -> jax.Array:
    inputs = resize(normalize(images, forward.normalization), forward.image_size)
    return grad_cam(merge_model(forward.definition, params, batch_stats), inputs, classes, stage)
