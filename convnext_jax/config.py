"""The experiment: every setting of a run, typed, checked at once and frozen.

A config file starts from :func:`default_config`, changes what it needs and returns the ``ConfigDict``. The command
line overrides fields of it, and :func:`parse_experiment` turns the whole, once, into an :class:`Experiment`, which is
all that the rest of the package sees. Whatever can be known to be wrong without looking at the data is refused here.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from convnext_jax.errors import UserError, nearest

DTYPES = ("auto", "float32", "bfloat16")
INITIALIZATIONS = ("normal", "fan_in")
OPTIMIZERS = ("adamw",)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    What an architecture's name decides (``convnext_jax.models.architectures``) can be decided otherwise here; a field
    that is not given stays as the name says.

    Attributes:
      name: a name of ``convnext_jax.list_models()``.
      drop_path: probability of dropping the last block of a sample (stochastic depth), in [0, 1); earlier blocks
        are dropped less, linearly down to 0.
      dtype: what the network computes in; ``auto`` is bfloat16 on an accelerator and float32 on a CPU. Parameters,
        normalisation statistics, logits and loss are float32 always.
      initialization: of the kernels: ``normal`` draws from N(0, 0.02) as the reference, ``fan_in`` by the number of
        inputs, with which narrow networks learn sooner.
      init_from: folder of weights to start from, as ``convnext_jax.tools.import_torch`` makes it; drawn at random where
        not given.
      stem: how pixels become the first feature map; the small images of CIFAR need ``conv3x3_s1`` or ``patch2``.
      block: ``convnext``, ``multiscale`` or its designs ``multiscale_a``, ``multiscale_b``, ``multiscale_c``.
      swin_mlp_stages: stages, from 1, whose blocks are Swin-MLP's instead.
      bilstm2d: whether a two-dimensional LSTM follows the last stage.
      depths: blocks of each of the four stages.
      dims: channels of each of the four stages.
      layer_scale: initial value of the layer scale; 0 leaves it out.
      grn: whether blocks have V2's Global Response Normalisation.
      kernel_size: side of the blocks' spatial convolution, odd.
      expansion: channels inside a block over channels outside.
      activation: ``gelu``, ``relu`` or ``silu``.
      convolution: the blocks' spatial convolution, ``depthwise`` or ``dense``.
      norm: ``layer`` or ``batch``.
    """

    name: str = "convnext_tiny"
    drop_path: float = 0.0
    dtype: str = "auto"
    initialization: str = "normal"
    init_from: str | None = None
    stem: str | None = None
    block: str | None = None
    swin_mlp_stages: tuple[int, ...] | None = None
    bilstm2d: bool | None = None
    depths: tuple[int, ...] | None = None
    dims: tuple[int, ...] | None = None
    layer_scale: float | None = None
    grn: bool | None = None
    kernel_size: int | None = None
    expansion: int | None = None
    activation: str | None = None
    convolution: str | None = None
    norm: str | None = None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set and where it lies.

    Attributes:
      name: ``digits``, ``cifar10``, ``cifar100``, ``tiny_imagenet``, ``image_folder`` or the name of another image
        classification data set that TFDS registers.
      data_dir: folder of the prepared data sets (TFDS's own default, or ``TFDS_DATA_DIR``, where not given); for
        ``image_folder`` the folder that holds ``train/``.
      manual_dir: folder with an archive that was fetched by hand, used instead of a download.
      image_size: side in pixels that images are resized to when they are decoded; their own size where not given.
      validation_fraction: the share of every class, in [0, 1), that is held out of train and evaluated in place of the
        test split, so that tuning leaves that alone; the same examples whatever the seed. Of an ``image_folder`` with
        ``train/`` alone the share is the test split.
    """

    name: str = "cifar100"
    data_dir: str | None = None
    manual_dir: str | None = None
    image_size: int | None = None
    validation_fraction: float = 0.0


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image on the device.

    Attributes:
      crop_padding: pixels of reflected border added on each side before a random crop of the image's own size;
        0 turns the crop off.
      flip: whether half of the images are mirrored left to right. Wrong for digits and letters.
    """

    crop_padding: int = 4
    flip: bool = True


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The objective and the optimiser.

    Attributes:
      name: ``adamw``.
      learning_rate: its peak, reached at the end of the warm-up and followed by a cosine.
      min_learning_rate: where the cosine ends.
      warmup_epochs: epochs, fractions allowed, of linear warm-up from 0.
      weight_decay: decoupled decay of the kernels; norms, biases and layer scale have none.
      b1: decay of Adam's first moment, in [0, 1).
      b2: decay of Adam's second moment, in [0, 1).
      eps: Adam's denominator offset.
      clip_norm: largest global norm of the gradient; no clipping where not given.
      layer_decay: factor of the learning rate from each block to the one before it, in (0, 1]; below 1 the first
        layers of imported weights change least.
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = None
    layer_decay: float = 1.0
    label_smoothing: float = 0.1


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run itself.

    Attributes:
      seed: from which, with the step, everything random is derived; 0 to 2^32 - 1.
      seeds: how many seeds are trained, ``seed``, ``seed + 1`` and so on, one after another; with more than one, each
        has a workdir of its own, ``seed_<n>``.
      epochs: passes over the training split.
      batch_size: images a step, over all devices together.
      eval_batch_size: images a step of evaluation, over all devices together. Changes no figure.
      eval_every_epochs: epochs between evaluations of the whole validation split, or without one of the test split,
        each followed by a checkpoint that carries its figures; the last epoch is always one of them.
      keep_latest: how many of the latest checkpoints are kept.
      keep_best: how many of the checkpoints with the best accuracy in these evaluations are kept besides.
      steps_per_dispatch: the most training steps that run on the device in one call. Rounded down to a divisor of
        the steps of an epoch.
    """

    seed: int = 0
    seeds: int = 1
    epochs: int = 100
    batch_size: int = 128
    eval_batch_size: int = 500
    eval_every_epochs: int = 1
    keep_latest: int = 2
    keep_best: int = 1
    steps_per_dispatch: int = 20


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All settings of a run; see the sections."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The settings as nested dictionaries of plain values, fit for JSON."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}


def default_config() -> config_dict.ConfigDict:
    """Every field at its default, for a config file to start from; a field that does not exist cannot be set."""
    config = config_dict.ConfigDict()
    for section, cls in SECTIONS.items():
        config[section] = fields = config_dict.ConfigDict()
        for field in dataclasses.fields(cls):
            kind, optional = _kind(field)
            fields[field.name] = config_dict.placeholder(kind) if optional else field.default
    return config.lock()


def parse_experiment(config: config_dict.ConfigDict | Mapping[str, Any]) -> Experiment:
    """Turns a configuration into a checked :class:`Experiment`.

    Args:
      config: sections by name, each a mapping from field to value; what is left out keeps its default.

    Raises:
      UserError: a section or field that does not exist, a value of the wrong type or range, or two values that
        contradict each other; the message names the field, the value and what is allowed.
    """
    values = config.to_dict() if isinstance(config, config_dict.ConfigDict) else dict(config)
    for section, fields in values.items():
        for name in fields or {}:
            check_field(f"{section}.{name}")
    experiment = Experiment(**{name: _parse_section(name, values.get(name) or {}) for name in SECTIONS})
    _check_ranges(experiment)
    _check_combinations(experiment)
    return experiment


def check_field(path: str) -> None:
    """Raises UserError where ``section.field`` is no field of an experiment."""
    section, _, name = path.partition(".")
    if section not in SECTIONS:
        raise UserError(f"config.{path}: there is no section {section!r}; {nearest(section, SECTIONS)}")
    names = [field.name for field in dataclasses.fields(SECTIONS[section])]
    if name not in names:
        raise UserError(f"config.{path}: there is no such field; {nearest(name, names)}")


def _kind(field: dataclasses.Field[Any]) -> tuple[type, bool]:
    """The plain type of a field, ``tuple`` for whole numbers, and whether it may be None."""
    kind, optional = field.type, isinstance(field.type, types.UnionType)
    if optional:
        (kind,) = (member for member in typing.get_args(kind) if member is not types.NoneType)
    return typing.cast(type, typing.get_origin(kind) or kind), optional


def _parse_section(section: str, values: Mapping[str, Any]) -> Any:
    cls = SECTIONS[section]
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return cls(
        **{
            name: _parse_value(f"config.{section}.{name}", value, *_kind(fields[name]))
            for name, value in values.items()
        }
    )


def _parse_value(path: str, value: Any, kind: type, optional: bool) -> Any:
    if optional and (value is None or value in ("None", "none", "")):
        return None
    # A whole number is a fine float, but True is no number and 1.5 no count.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        # JSON knows no tuples.
        return tuple(_parse_value(f"{path}[{index}]", item, int, False) for index, item in enumerate(value))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{path}={value!r}: must be of type {kind.__name__}{' or none' if optional else ''}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value!r}: must be a finite number")
    return value


# (section, field): (lowest, highest, whether the highest itself is allowed)
_RANGES: dict[tuple[str, str], tuple[float, float, bool]] = {
    ("model", "drop_path"): (0, 1, False),
    ("model", "layer_scale"): (0, math.inf, False),
    ("model", "kernel_size"): (1, 999, True),
    ("model", "expansion"): (1, 1000, True),
    ("data", "image_size"): (1, 4096, True),
    ("data", "validation_fraction"): (0, 1, False),
    ("augment", "crop_padding"): (0, 4096, True),
    ("optim", "min_learning_rate"): (0, math.inf, False),
    ("optim", "warmup_epochs"): (0, math.inf, False),
    ("optim", "weight_decay"): (0, math.inf, False),
    ("optim", "b1"): (0, 1, False),
    ("optim", "b2"): (0, 1, False),
    ("optim", "layer_decay"): (0, 1, True),
    ("optim", "label_smoothing"): (0, 1, False),
    ("run", "seed"): (0, 2**32, False),
    ("run", "seeds"): (1, 1000, True),
    ("run", "epochs"): (1, 10**6, True),
    ("run", "batch_size"): (1, 2**20, True),
    ("run", "eval_batch_size"): (1, 2**20, True),
    ("run", "eval_every_epochs"): (1, 10**6, True),
    ("run", "keep_latest"): (1, 10**6, True),
    ("run", "keep_best"): (0, 10**6, True),
    ("run", "steps_per_dispatch"): (1, 10**6, True),
}
_POSITIVE = (("optim", "learning_rate"), ("optim", "eps"), ("optim", "clip_norm"), ("optim", "layer_decay"))


def _check_ranges(experiment: Experiment) -> None:
    for (section, name), (low, high, closed) in _RANGES.items():
        value = getattr(getattr(experiment, section), name)
        if value is not None and not (low <= value and (value <= high if closed else value < high)):
            allowed = f"in [{low}, {high}{']' if closed else ')'}" if high < math.inf else f"at least {low}"
            raise UserError(f"config.{section}.{name}={value!r}: must be {allowed}")
    for section, name in _POSITIVE:
        value = getattr(getattr(experiment, section), name)
        if value is not None and value <= 0:
            raise UserError(f"config.{section}.{name}={value!r}: must be greater than 0")


def _check_combinations(experiment: Experiment) -> None:
    model, optim, run = experiment.model, experiment.optim, experiment.run
    for path, value, allowed in (
        ("config.model.dtype", model.dtype, DTYPES),
        ("config.model.initialization", model.initialization, INITIALIZATIONS),
        ("config.optim.name", optim.name, OPTIMIZERS),
    ):
        if value not in allowed:
            raise UserError(f"{path}={value!r}: unknown; {nearest(value, allowed)}")
    if run.seed + run.seeds > 2**32:
        raise UserError(
            f"config.run.seeds={run.seeds} from config.run.seed={run.seed} on go beyond 4294967295; start lower"
        )
    if optim.warmup_epochs > run.epochs:
        raise UserError(
            f"config.optim.warmup_epochs={optim.warmup_epochs:g} is longer than the run of"
            f" config.run.epochs={run.epochs}; shorten the warm-up or train longer"
        )
    if optim.min_learning_rate > optim.learning_rate:
        raise UserError(
            f"config.optim.min_learning_rate={optim.min_learning_rate:g} is above its peak"
            f" config.optim.learning_rate={optim.learning_rate:g}"
        )
