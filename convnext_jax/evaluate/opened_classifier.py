"""A trained classifier, opened from a workdir or from a folder of weights."""

import dataclasses
from pathlib import Path

import jax

from convnext_jax.batches.preprocess import Normalization
from convnext_jax.errors import UserError
from convnext_jax.evaluate.predictions import Forward
from convnext_jax.evaluate.preprocessing import Preprocessing, preprocessing_of
from convnext_jax.evaluate.saved_run import SavedRun
from convnext_jax.evaluate.trained_network import check_weights_name, open_one_seed
from convnext_jax.models.interface import Architecture
from convnext_jax.models.parameters import Tree, split_model
from convnext_jax.models.registry import load_model
from convnext_jax.sharding import Sharding, make_mesh


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the weights of a classifier come from.

    Attributes:
      text: in words.
      run: the run that trained them, None for a folder of weights.
      step: of the checkpoint, None for a folder of weights.
      weights: ``raw``, or ``ema`` for the moving average.
    """

    text: str
    run: SavedRun | None = None
    step: int | None = None
    weights: str = "raw"


@dataclasses.dataclass(frozen=True)
class OpenedClassifier:
    """A network with its weights, and what is needed to give it pictures and to read its answers.

    Attributes:
      model: the name that its architecture started from.
      architecture: what it is made of.
      forward: how pixels become logits.
      params: the parameters, on the devices.
      batch_stats: the running statistics, empty if there are none.
      classes: the name of each class, in the order of the logits.
      preprocess: how a picture becomes pixels.
      origin: where the weights come from.
    """

    model: str
    architecture: Architecture
    forward: Forward
    params: Tree
    batch_stats: Tree
    classes: tuple[str, ...]
    preprocess: Preprocessing
    origin: Origin


def open_classifier(
    directory: Path,
    *,
    step: str | int = "latest",
    weights: str = "raw",
    image_size: int | None = None,
    dtype: str | None = None,
    if_masks: str = "give --masks DIR, or in Python take convnext_jax.evaluate.segmenter.load",
) -> OpenedClassifier:
    """Opens a trained classifier.

    Args:
      directory: a workdir of ``train.py``, of one seed, or a folder of weights.
      step: which checkpoint: ``latest``, ``best``, or a step.
      weights: which weights of it: ``raw``, or ``ema`` for the moving average.
      image_size: side in pixels that pictures are resized to; None is that of the training. A folder of weights may not
        know it.
      dtype: what a run's network computes in; None is what its config says. A folder's computes in float32.
      if_masks: what to do about a run that predicts masks, to be said in the error.

    Raises:
      UserError: no such workdir, checkpoint or weights, a run that predicts masks, or the size of the images is not
        known.
    """
    check_weights_name(weights, image_size)
    if (directory / "model.json").is_file():
        if (str(step), weights) != ("latest", "raw"):
            raise UserError(f"{directory} is a folder of weights, without checkpoints; leave step and weights out")
        return _open_weights(directory, image_size)
    run = open_one_seed(directory, dtype)
    if run.experiment.task.has_masks:
        raise UserError(
            f"the run in {directory} predicts masks (config.task.name={run.experiment.task.name}): {if_masks}"
        )
    preprocess = preprocessing_of(run, image_size)
    number = run.select(str(step))
    params, batch_stats = run.restore(number, weights)
    average = "moving average of the " if weights == "ema" else ""
    return OpenedClassifier(
        model=run.experiment.model.name,
        architecture=run.experiment.model.architecture,
        forward=run.forward(),
        params=params,
        batch_stats=batch_stats,
        classes=run.record.class_names,
        preprocess=preprocess,
        origin=Origin(f"the {average}weights of step {number} of {directory.name}", run, number, weights),
    )


def _open_weights(directory: Path, image_size: int | None) -> OpenedClassifier:
    model, folder = load_model(directory)
    if image_size is not None:
        (height, width), network_size = (image_size, image_size), None
    elif folder.image_size is not None:
        (height, width), network_size = folder.image_size, folder.network_size
    else:
        raise UserError(f"{directory} is a folder of weights, which does not know the size of images; give image_size")
    model.architecture.check_image_size(network_size or height, network_size or width)
    definition, params, batch_stats = split_model(model)
    sharding = Sharding(make_mesh())
    params, batch_stats = jax.device_put((params, batch_stats), sharding.replicated)
    return OpenedClassifier(
        model=folder.model,
        architecture=model.architecture,
        forward=Forward(definition, Normalization(folder.mean, folder.std), network_size, sharding),
        params=params,
        batch_stats=batch_stats,
        classes=folder.class_names,
        preprocess=Preprocessing(height, width, folder.mean, folder.std),
        origin=Origin(folder.source),
    )
