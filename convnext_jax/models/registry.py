"""Networks by name, as users know it from timm."""

import dataclasses
import fnmatch
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.errors import UserError, check, nearest
from convnext_jax.layers.parameters import SCHEMES, Initializer
from convnext_jax.models.interface import Architecture, BuildOptions, Model
from convnext_jax.models.parameters import abstract_model, merge_model, split_model
from convnext_jax.models.segmentation import HEADS, PixelHead, SegmentationModel
from convnext_jax.models.table import MODELS
from convnext_jax.models.weights import ModelFolder, start_from
from convnext_jax.precision import DTYPES, Precision, precision_of

INITIALIZATIONS = ("reference", *SCHEMES)
TASKS = ("classification", "segmentation", "multitask")
_MOST_BLOCKS = 1000  # of a network that a file describes; the pre-activation ResNet-1001 has 333

log = logging.getLogger(__name__)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names that `create_model` knows and that match a shell pattern, each family from its smallest.

    >>> list_models("convnext*_tiny")
    ['convnext_tiny', 'convnextv2_tiny']
    """
    return fnmatch.filter(MODELS, pattern)


def named_architecture(name: str, fields: Mapping[str, Any] | None = None) -> Architecture:
    """Returns the architecture of a name, with some of its family's fields changed.

    >>> named_architecture("convnext_tiny", {"stem": "patch2"}).smallest_image
    16

    Raises:
      UserError: an unknown name (the message has the nearest), a field that the family does not have (the message lists
        those that it has), or a value out of range.
    """
    if name not in MODELS:
        raise UserError(f"unknown model {name!r}: {nearest(name, MODELS)}")
    return _replace(MODELS[name], name, fields or {})


def _replace(architecture: Architecture, name: str, fields: Mapping[str, Any]) -> Architecture:
    own = [field.name for field in dataclasses.fields(architecture)]
    for field in fields:
        if field not in own:
            raise UserError(f"{field}: {name} has no such field; {nearest(field, own)}")
    return dataclasses.replace(architecture, **fields)


def create_model(
    name: str | Architecture,
    *,
    num_classes: int,
    task: str = "classification",
    head: str = "fpn",
    head_channels: int | None = None,
    pixel_classes: int | None = None,
    in_channels: int = 3,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    remat: bool = False,
    dtype: str | Precision = "float32",
    initialization: str = "reference",
    init_from: str | Path | None = None,
    seed: int = 0,
    **fields: Any,
) -> Model:
    """Creates a model with random float32 parameters.

    It allocates nothing inside of `convnext_jax.models.abstract_model`.

    >>> model = create_model("convnext_atto", num_classes=10, stem="patch2")
    >>> model(jnp.zeros((1, 32, 32, 3))).shape
    (1, 10)
    >>> model = create_model("convnext_atto", task="segmentation", num_classes=21, head="fpn")
    >>> model(jnp.zeros((1, 32, 32, 3))).shape
    (1, 32, 32, 21)

    Args:
      name: one of `list_models()`, or an `Architecture` of your own.
      num_classes: number of logits, at least 1: of an image, or of a pixel if the task is "segmentation".
      task: "classification"; "segmentation", with the network as the backbone of a
        `convnext_jax.models.segmentation.SegmentationModel`; or "multitask", which does both.
      head: what returns the logits of pixels, one of `convnext_jax.models.segmentation.HEADS`.
      head_channels: of that head; None takes its own, 128 of "fpn" and 512 of "upernet".
      pixel_classes: number of logits of a pixel if the task is "multitask".
      in_channels: channels of the images.
      drop_path: rate of stochastic depth in the last block, in [0, 1), growing linearly from 0 in the first.
      dropout: rate of the dropout before the head, in [0, 1).
      remat: whether a block's insides are computed again in the backward pass instead of being kept: less memory,
        about a third more arithmetic.
      dtype: what the network computes in, one of `convnext_jax.precision.DTYPES` or a `Precision`. Normalization
        statistics and logits stay float32.
      initialization: of the kernels, one of `INITIALIZATIONS`: "reference" as the family's authors, otherwise see
        `convnext_jax.layers.parameters.Initializer`.
      init_from: folder of weights to start from (`convnext_jax.tools.import_torch`). The head stays random if its
        number of classes differs, and what has another size is resized if it can be. A warning says so.
      seed: of the initial parameters, which are a function of it; 0 or more.
      **fields: fields of the family to change, such as ``stem="patch2"`` for a ConvNeXt.

    Raises:
      UserError: a name or a field that does not exist, a value out of range, or weights that do not fit.
    """
    if isinstance(name, str):
        architecture = named_architecture(name, fields)
    else:
        architecture = _replace(name, type(name).__name__, fields)
    check("num_classes", num_classes, num_classes >= 1, "1 or more")
    check("task", task, task in TASKS, f"one of {', '.join(TASKS)}")
    check("head", head, head in HEADS, f"one of {', '.join(HEADS)}")
    check("head_channels", head_channels, head_channels is None or head_channels >= 1, "1 or more")
    check("pixel_classes", pixel_classes, task != "multitask" or (pixel_classes or 0) >= 1, "1 or more")
    check("in_channels", in_channels, in_channels >= 1, "1 or more")
    check("drop_path", drop_path, 0.0 <= drop_path < 1.0, "in [0, 1)")
    check("dropout", dropout, 0.0 <= dropout < 1.0, "in [0, 1)")
    check("initialization", initialization, initialization in INITIALIZATIONS, f"one of {', '.join(INITIALIZATIONS)}")
    check("seed", seed, seed >= 0, "0 or more")
    if not isinstance(dtype, Precision):
        check("dtype", dtype, dtype in DTYPES, f"one of {', '.join(DTYPES)}")
    scheme = architecture.initialization if initialization == "reference" else initialization
    options = BuildOptions(
        init=Initializer(np.random.SeedSequence(seed), scheme),
        num_classes=num_classes,
        in_channels=in_channels,
        drop_path=drop_path,
        dropout=dropout,
        remat=remat,
        precision=dtype if isinstance(dtype, Precision) else precision_of(dtype),
    )
    if task == "classification":
        model = architecture.build(options)
    else:
        of_pixels = pixel_classes if task == "multitask" and pixel_classes else num_classes
        pixel_head = PixelHead(head, of_pixels, head_channels, classifies=task == "multitask")
        model = SegmentationModel(architecture, options, pixel_head)
    if init_from is None:
        return model
    definition, *trees = split_model(model)
    params, batch_stats, notes = start_from(ModelFolder.read(Path(init_from)), architecture, *trees)
    for note in notes:
        log.warning("%s: %s", init_from, note)
    return merge_model(definition, *jax.tree.map(jnp.asarray, (params, batch_stats)))


def load_model(directory: str | Path) -> tuple[Model, ModelFolder]:
    """Builds the network of a folder of weights, as it was trained, with its weights.

    Args:
      directory: a folder that `convnext_jax.tools.import_torch`, `convnext_jax.tools.soup` or, with ``--format
        convnext_jax``, `convnext_jax.tools.export` wrote.

    Returns:
      The model, and the folder's content: its classes, and the mean and deviation that its images are normalized with.

    Raises:
      UserError: no such folder, or a damaged one.
    """
    folder = ModelFolder.read(Path(directory))
    if not folder.class_names:
        raise UserError(
            f"{directory} holds a backbone without a classifier; train one from it with"
            f" config.model.init_from={directory}, or create_model(..., init_from=...)"
        )
    architecture = _recorded_architecture(folder, Path(directory))
    created = abstract_model(
        lambda: create_model(architecture, num_classes=len(folder.class_names), in_channels=len(folder.mean))
    )
    params, batch_stats, notes = start_from(folder, architecture, created.params, created.batch_stats)
    for note in notes:
        log.warning("%s: %s", directory, note)
    return merge_model(created.definition, *jax.tree.map(jnp.asarray, (params, batch_stats))), folder


def _recorded_architecture(folder: ModelFolder, directory: Path) -> Architecture:
    """Returns the architecture that a folder's files describe, which others may have written."""
    ours = named_architecture(folder.model)
    for name, value in folder.architecture.items():
        kind = type(getattr(ours, name, value))
        items = value if isinstance(value, tuple) else (value,)
        right = type(value) is kind or (kind is float and type(value) is int)
        right &= kind is not tuple or all(type(item) is int for item in items)
        if not right or ("depth" in name and sum(items) > _MOST_BLOCKS):
            raise UserError(f"{directory} describes no {folder.model} ({name}={value!r:.50}); make the folder again")
    return named_architecture(folder.model, folder.architecture)
