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
OPTIMIZERS = ("adamw", "sgd", "lion", "lamb", "muon")
SCHEDULES = ("cosine", "step", "one_cycle", "warmup_stable_decay")
# (section, field): the names that it may have.
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("model", "dtype"): DTYPES,
    ("model", "initialization"): INITIALIZATIONS,
    ("augment", "crop_mode"): ("reflect", "constant"),
    ("augment", "flip"): ("random", "alternating", "none"),
    ("augment", "policy"): ("none", "randaugment", "trivialaugment"),
    ("augment", "erasing_mode"): ("constant", "pixel"),
    ("optim", "name"): OPTIMIZERS,
    ("optim", "schedule"): SCHEDULES,
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    What an architecture's name decides (``convnext_jax.models.architectures``) can be decided otherwise here; a field
    that is not given stays as the name says.

    Attributes:
      name: a name of ``convnext_jax.list_models()``.
      drop_path: probability of dropping the last block of a sample (stochastic depth), in [0, 1); earlier blocks
        are dropped less, linearly down to 0.
      dropout: probability of dropping a value before the head, in [0, 1).
      remat: whether a block's insides are computed again in the backward pass instead of being kept: less memory for
        about a third more arithmetic.
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
    dropout: float = 0.0
    remat: bool = False
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
    """What happens to a training image on the device, in this order.

    Attributes:
      crop_padding: pixels of border added on each side before a random crop of the image's own size; 0 turns the crop
        off.
      crop_mode: what the border is: ``reflect`` or ``constant``, the mean colour.
      resized_crop_area: least share of the image in a random rectangle that is enlarged to the whole; 1 turns it off.
      flip: ``random`` mirrors half of the images left to right, ``alternating`` each one in every other epoch, ``none``
        none. Wrong for digits and letters.
      color_jitter: largest relative change of brightness, contrast and saturation, in [0, 1]; 0 turns it off.
      policy: ``none``, ``randaugment`` or ``trivialaugment``.
      randaugment_layers: operations one after another.
      randaugment_magnitude: mean strength of an operation, in [0, 10].
      randaugment_std: deviation of the strength.
      randaugment_probability: that an operation acts.
      erasing_probability: that a random rectangle of an image is covered; 0 turns it off.
      erasing_mode: ``constant`` covers with the mean colour, ``pixel`` with noise.
      mixup_alpha: mixup's share of the other image is drawn from Beta(alpha, alpha); 0 turns it off.
      cutmix_alpha: the same of CutMix's.
      mix_probability: that an image is mixed by either.
      mix_switch_probability: that it is CutMix, where both are on.
    """

    crop_padding: int = 4
    crop_mode: str = "reflect"
    resized_crop_area: float = 1.0
    flip: str = "random"
    color_jitter: float = 0.0
    policy: str = "none"
    randaugment_layers: int = 2
    randaugment_magnitude: float = 7.0
    randaugment_std: float = 0.5
    randaugment_probability: float = 0.5
    erasing_probability: float = 0.0
    erasing_mode: str = "constant"
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    mix_switch_probability: float = 0.5


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The objective, the optimiser and its learning rate.

    Attributes:
      name: ``adamw``, ``sgd``, ``lion``, ``lamb``, or ``muon``, which takes the hidden matrices and leaves the rest to
        AdamW; see ``convnext_jax.optim.optimizer``.
      schedule: ``cosine``; ``step``, which falls at the ``decay_epochs``; ``one_cycle``, up and down; or
        ``warmup_stable_decay``, constant and then linear; see ``convnext_jax.optim.schedules``.
      learning_rate: its peak, reached at the end of the warm-up. One that suits ``adamw`` suits ``muon`` too; ``lion``
        takes a third to a tenth of it (Chen et al. 2023), ``sgd`` some 100 times as much.
      min_learning_rate: where the schedule ends; of no use to ``step``.
      warmup_epochs: epochs, fractions allowed, of linear warm-up from 0; of ``one_cycle`` the way to the peak.
      decay_epochs: of ``step``: epochs, ascending, behind which the learning rate is multiplied by the factor.
      decay_factor: of ``step``, in (0, 1).
      decay_fraction: of ``warmup_stable_decay``: share of the run, in (0, 1], in which the learning rate falls.
      weight_decay: of the kernels; norms, biases, layer scale and GRN have none. Decoupled, but for ``sgd``, where it
        is the gradient of an L2 penalty, as in the papers that train with SGD; 1e-4 is theirs.
      b1: decay of the first moment of ``adamw``, ``lamb`` and ``muon``'s AdamW, in [0, 1); of ``lion`` the share of
        the momentum in an update.
      b2: decay of the second moment of the same, in [0, 1); of ``lion`` the decay of the momentum, where its authors
        take 0.99.
      eps: denominator offset of the same but ``lion``.
      momentum: of ``sgd`` and ``muon``, in [0, 1); Muon's author takes 0.95.
      nesterov: whether the momentum of ``sgd`` and ``muon`` looks a step ahead.
      clip_norm: largest global norm of the gradient; no clipping where not given.
      layer_decay: factor of the learning rate from each block to the one before it, in (0, 1]; below 1 the first
        layers of imported weights change least.
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
      accumulation: parts that a batch is cut into, whose gradients are taken one after another and averaged, for
        batches that do not fit into memory.
      sam_rho: how far, in the parameters' Euclidean norm, sharpness-aware minimisation climbs before it takes the
        gradient (twice the time of a step); 0 turns it off.
      ema_decay: decay of an exponential moving average of the parameters, evaluated and saved besides them, in
        [0, 1); 0 keeps none.
    """

    name: str = "adamw"
    schedule: str = "cosine"
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6
    warmup_epochs: float = 5.0
    decay_epochs: tuple[int, ...] = ()
    decay_factor: float = 0.1
    decay_fraction: float = 0.2
    weight_decay: float = 0.05
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = True
    clip_norm: float | None = None
    layer_decay: float = 1.0
    label_smoothing: float = 0.1
    accumulation: int = 1
    sam_rho: float = 0.0
    ema_decay: float = 0.0


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
      image_sizes: sides in pixels that the training images are scaled to on the device, in equal parts of the run, such
        as ``(24, 32)``; their own size throughout where empty. Those that are evaluated are scaled to the last of them.
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
    image_sizes: tuple[int, ...] = ()
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
    ("model", "dropout"): (0, 1, False),
    ("model", "layer_scale"): (0, math.inf, False),
    ("model", "kernel_size"): (1, 999, True),
    ("model", "expansion"): (1, 1000, True),
    ("data", "image_size"): (1, 4096, True),
    ("data", "validation_fraction"): (0, 1, False),
    ("augment", "crop_padding"): (0, 4096, True),
    ("augment", "resized_crop_area"): (0, 1, True),
    ("augment", "color_jitter"): (0, 1, True),
    ("augment", "randaugment_layers"): (1, 16, True),
    ("augment", "randaugment_magnitude"): (0, 10, True),
    ("augment", "randaugment_std"): (0, 10, True),
    ("augment", "randaugment_probability"): (0, 1, True),
    ("augment", "erasing_probability"): (0, 1, True),
    ("augment", "mixup_alpha"): (0, 1000, True),
    ("augment", "cutmix_alpha"): (0, 1000, True),
    ("augment", "mix_probability"): (0, 1, True),
    ("augment", "mix_switch_probability"): (0, 1, True),
    ("optim", "min_learning_rate"): (0, math.inf, False),
    ("optim", "warmup_epochs"): (0, math.inf, False),
    ("optim", "weight_decay"): (0, math.inf, False),
    ("optim", "decay_factor"): (0, 1, False),
    ("optim", "decay_fraction"): (0, 1, True),
    ("optim", "b1"): (0, 1, False),
    ("optim", "b2"): (0, 1, False),
    ("optim", "momentum"): (0, 1, False),
    ("optim", "layer_decay"): (0, 1, True),
    ("optim", "label_smoothing"): (0, 1, False),
    ("optim", "accumulation"): (1, 2**20, True),
    ("optim", "sam_rho"): (0, math.inf, False),
    ("optim", "ema_decay"): (0, 1, False),
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
_POSITIVE = (
    ("augment", "resized_crop_area"),
    ("optim", "learning_rate"),
    ("optim", "decay_factor"),
    ("optim", "decay_fraction"),
    ("optim", "eps"),
    ("optim", "clip_norm"),
    ("optim", "layer_decay"),
)


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
    model, augment, optim, run = experiment.model, experiment.augment, experiment.optim, experiment.run
    for (section, name), allowed in CHOICES.items():
        value = getattr(getattr(experiment, section), name)
        if value not in allowed:
            raise UserError(f"config.{section}.{name}={value!r}: unknown; {nearest(value, allowed)}")
    if run.seed + run.seeds > 2**32:
        raise UserError(
            f"config.run.seeds={run.seeds} from config.run.seed={run.seed} on go beyond 4294967295; start lower"
        )
    if (augment.mixup_alpha or augment.cutmix_alpha) and run.batch_size % 2:
        name = "mixup_alpha" if augment.mixup_alpha else "cutmix_alpha"
        raise UserError(
            f"config.augment.{name}={getattr(augment, name):g} mixes images in pairs and"
            f" config.run.batch_size={run.batch_size} is odd; take an even one"
        )
    if run.batch_size % optim.accumulation:
        raise UserError(
            f"config.optim.accumulation={optim.accumulation} does not divide config.run.batch_size={run.batch_size}"
        )
    if model.remat and model.norm == "batch":
        raise UserError(
            "config.model.remat=True would lose the running statistics of config.model.norm='batch'; leave one of them"
        )
    if optim.accumulation > 1 and model.norm == "batch":
        raise UserError(
            f"config.optim.accumulation={optim.accumulation} would change the statistics of"
            " config.model.norm='batch', which are of a whole batch; leave one of them"
        )
    if len(run.image_sizes) > run.epochs or any(size < 1 for size in run.image_sizes):
        raise UserError(
            f"config.run.image_sizes={run.image_sizes}: must be positive, at most one for each of"
            f" config.run.epochs={run.epochs}"
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
    _check_schedule(optim, run)


def _check_schedule(optim: OptimConfig, run: RunConfig) -> None:
    """What a schedule needs of the fields that are its own."""
    warmup, decays, end = optim.warmup_epochs, optim.decay_epochs, f"config.run.epochs={run.epochs}"
    if decays and optim.schedule != "step":
        raise UserError(
            f"config.optim.decay_epochs={decays} is for config.optim.schedule=step, not {optim.schedule};"
            " change the one or leave out the other"
        )
    if optim.schedule == "step":
        if not decays:
            raise UserError("config.optim.schedule=step: config.optim.decay_epochs must be given, such as (100, 150)")
        if list(decays) != sorted(set(decays)):
            raise UserError(f"config.optim.decay_epochs={decays}: must ascend")
        if not warmup < decays[0] <= decays[-1] < run.epochs:
            raise UserError(
                f"config.optim.decay_epochs={decays}: must lie behind the warm-up of config.optim.warmup_epochs="
                f"{warmup:g} and before the end of the run at {end}"
            )
    if optim.schedule == "one_cycle" and not 0 < warmup < run.epochs:
        raise UserError(
            f"config.optim.schedule=one_cycle peaks at config.optim.warmup_epochs={warmup:g}, which must lie between"
            f" 0 and {end}"
        )
    # Shares of an epoch are no exact binary fractions.
    if optim.schedule == "warmup_stable_decay" and warmup + optim.decay_fraction * run.epochs > run.epochs + 1e-6:
        raise UserError(
            f"config.optim.warmup_epochs={warmup:g} reaches into the last config.optim.decay_fraction="
            f"{optim.decay_fraction:g} of {end}; shorten one or train longer"
        )
