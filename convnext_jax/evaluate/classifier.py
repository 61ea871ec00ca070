"""A trained network that classifies pictures: ``convnext_jax.load(workdir)``."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy.special import softmax

from convnext_jax.batches.preprocess import Normalization, normalize, resize
from convnext_jax.errors import UserError, check
from convnext_jax.evaluate.grad_cam import explainable_stage, grad_cam
from convnext_jax.evaluate.predictions import Forward, Predictor
from convnext_jax.evaluate.preprocessing import AnyPicture, Preprocessing, preprocessing_of
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.models.parameters import Tree, merge_model, split_model
from convnext_jax.models.registry import load_model
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.storage.cloud import to_path
from convnext_jax.workdir.claim import read_experiment

BATCH_SIZE = 32  # of every batch, so that each program compiles once, whatever the number of pictures
Pictures = np.ndarray | AnyPicture | Sequence[AnyPicture]


class Classifier:
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
        check("batch_size", batch_size, batch_size >= 1, "1 or more")
        self.classes = classes
        self.preprocess = preprocess
        devices = forward.sharding.num_devices
        self.batch_size = -(-batch_size // devices) * devices
        self._forward = forward
        self._state = params, batch_stats
        self._logits = Predictor(forward, self.batch_size)
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
        return np.concatenate([softmax(self._run(self._logits, batch), -1) for _, batch in self._batches(images)])

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
            given = [_padded(array, self.batch_size) for array in (batch, wanted)]
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

    def _checked(self, images: Pictures) -> np.ndarray | Sequence[AnyPicture]:
        if isinstance(images, str | PathLike | Image.Image):
            return [images]
        if len(images) == 0:
            raise UserError("no images are given")
        shape = self.preprocess.shape
        if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.shape[1:] != shape):
            raise UserError(
                f"images of {images.dtype} {list(images.shape)} are given, and the network takes uint8"
                f" [N,{','.join(map(str, shape))}]; give Pillow images or paths to have them resized"
            )
        return images

    def _batches(self, images: np.ndarray | Sequence[AnyPicture]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields batches of pixels, each with the number of its first image."""
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            yield start, batch if isinstance(batch, np.ndarray) else np.stack([self.preprocess(each) for each in batch])

    def _run(self, predictor: Predictor, batch: np.ndarray) -> np.ndarray:
        return predictor(*self._state, _padded(batch, self.batch_size))[: len(batch)]


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
      UserError: no such workdir, checkpoint or weights, or the size of the images is not known.
    """
    directory = to_path(workdir)
    check("weights", weights, weights in ("raw", "ema"), "raw or ema")
    check("image_size", image_size, image_size is None or image_size >= 1, "1 or more")
    if (directory / "model.json").is_file():
        if (str(step), weights) != ("latest", "raw"):
            raise UserError(f"{directory} is a folder of weights, without checkpoints; leave step and weights out")
        return _of_weights(directory, image_size, batch_size)
    experiment = read_experiment(directory)
    if experiment.run.seeds > 1:
        raise UserError(
            f"{directory} holds {experiment.run.seeds} seeds; take one of them, such as"
            f" {directory}/seed_{experiment.run.seed}"
        )
    run = SavedRun.open(directory, data_dir=None, dtype=None)
    preprocess = preprocessing_of(run, image_size)
    params, batch_stats = run.restore(run.select(str(step)), weights)
    return Classifier(
        run.forward(),
        params,
        batch_stats,
        classes=run.record.class_names,
        preprocess=preprocess,
        batch_size=batch_size,
    )


def _of_weights(directory: Path, image_size: int | None, batch_size: int) -> Classifier:
    if image_size is None:
        raise UserError(f"{directory} is a folder of weights, which does not know the size of images; give image_size")
    model, folder = load_model(directory)
    model.architecture.check_image_size(image_size, image_size)
    definition, params, batch_stats = split_model(model)
    sharding = Sharding(make_mesh())
    return Classifier(
        Forward(definition, Normalization(folder.mean, folder.std), None, sharding),
        *jax.device_put((params, batch_stats), sharding.replicated),
        classes=folder.class_names,
        preprocess=Preprocessing(image_size, image_size, folder.mean, folder.std),
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


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    """Returns a batch filled up to a size with its last entry."""
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1), mode="edge")
