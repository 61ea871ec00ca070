"""The settings of a run, typed and frozen, section by section."""

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_jax.models.interface import Architecture


def _default_architecture() -> "Architecture":
    from convnext_jax.models.table import MODELS  # imports JAX

    return MODELS[ModelConfig.name]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    In a configuration the fields of the named family stand beside these: those of ``ConvNeXtArchitecture`` for a
    ConvNeXt (``kernel_size``, ``stem``, ...), those of ``ResNetArchitecture`` for a ResNet. One that is not given stays
    as the name says.

    Attributes:
      name: a name of ``convnext_jax.list_models()``.
      drop_path: probability of dropping the last block of a sample (stochastic depth), in [0, 1). Earlier blocks are
        dropped less, linearly down to 0.
      dropout: probability of dropping a value before the head, in [0, 1).
      remat: whether a block's insides are computed again in the backward pass instead of being kept: less memory for
        about a third more arithmetic (benchmarks/remat.md).
      dtype: what the network computes in. ``auto`` is bfloat16 on an accelerator and float32 on a CPU. Parameters,
        normalization statistics, logits and loss are always float32.
      initialization: of the kernels. ``reference`` draws them as the family's authors do, ``normal`` from N(0, 0.02),
        ``fan_in`` by the number of inputs, with which narrow ConvNeXts learn sooner, ``fan_out`` by that of outputs.
      init_from: folder of weights to start from, as ``convnext_jax.tools.import_torch`` makes it; None draws them at
        random.
      architecture: the named family's own fields.
    """

    name: str = "convnext_tiny"
    drop_path: float = 0.0
    dropout: float = 0.0
    remat: bool = False
    dtype: str = "auto"
    initialization: str = "reference"
    init_from: str | None = None
    architecture: "Architecture" = dataclasses.field(default_factory=_default_architecture)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set and where it is.

    Attributes:
      name: ``digits``, ``cifar10``, ``cifar100``, ``tiny_imagenet``, ``image_folder``, ``imagenet_resized/64x64``,
        ``imagenet2012`` or the name of another image classification data set that TFDS registers.
      data_dir: folder of the prepared data sets; None is TFDS's own default, or ``TFDS_DATA_DIR``. For
        ``image_folder`` the folder that holds ``train/``.
      manual_dir: folder with an archive that was fetched by hand, used instead of a download.
      image_size: side in pixels that images are resized to when they are decoded; None keeps their own.
      channels: channels that images are converted to when they are decoded: 1 grayscale, 2 grayscale and alpha, 3 RGB,
        4 RGB and alpha. None takes what the data set declares, and RGB for ``image_folder`` and ``digits``.
      validation_fraction: share of every class, in [0, 1), that is held out of train and evaluated instead of the test
        split, so that tuning leaves that alone. The same examples whatever the seed. For an ``image_folder`` that has
        ``train/`` alone, and a TFDS data set that has ``train`` alone, the share is the test split.
      resident: whether the training split lies on the devices: ``always``; ``never``, each call's batches are read from
        the host's files while the one before it runs; or ``auto``, on the devices if it takes at most a quarter of the
        memory of each. The batches are the same; XLA may round a step otherwise.
    """

    name: str = "cifar100"
    data_dir: str | None = None
    manual_dir: str | None = None
    image_size: int | None = None
    channels: int | None = None
    validation_fraction: float = 0.0
    resident: str = "auto"


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What is learned.

    All fields but the name are for segmentation; see `convnext_jax.tasks.pixel_losses` for the losses.

    Attributes:
      name: ``classification``; ``segmentation``, a class for each pixel; or ``multitask``, both on one backbone.
      head: what returns the logits of pixels: ``fpn``, a light feature pyramid, or ``upernet``.
      head_channels: of the head; None takes its own, 128 of ``fpn`` and 512 of ``upernet``.
      loss: of the pixels: one of ``cross_entropy``, ``dice``, ``focal`` and ``lovasz``, or several joined by ``+``.
      cross_entropy_weight: of that loss in the sum.
      dice_weight: the same.
      focal_weight: the same.
      lovasz_weight: the same.
      dice_smoothing: what is added above and below the fraction bar.
      dice_over: ``image`` takes the coefficient of each image, ``batch`` that of all pixels of the batch.
      dice_background: whether class 0 counts in it. Without it, two classes make the binary Dice loss.
      focal_gamma: how much less a pixel counts that is right already.
      auxiliary_weight: of the loss of the head that is trained beside ``upernet``.
      classification_weight: of the loss of the classification in ``multitask``.
    """

    name: str = "classification"
    head: str = "fpn"
    head_channels: int | None = None
    loss: str = "cross_entropy"
    cross_entropy_weight: float = 1.0
    dice_weight: float = 1.0
    focal_weight: float = 1.0
    lovasz_weight: float = 1.0
    dice_smoothing: float = 1.0
    dice_over: str = "image"
    dice_background: bool = True
    focal_gamma: float = 2.0
    auxiliary_weight: float = 0.4
    classification_weight: float = 1.0

    @property
    def has_masks(self) -> bool:
        """Whether it learns from masks."""
        return self.name != "classification"

    @property
    def losses(self) -> tuple[tuple[str, float], ...]:
        """The losses of the pixels by name, each with its weight."""
        return tuple((name, getattr(self, f"{name}_weight", 1.0)) for name in self.loss.split("+"))


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """What happens to a training image on the device, in this order.

    Attributes:
      crop_padding: pixels of border added on each side before a random crop of the image's own size; 0 turns the crop
        off.
      crop_mode: what the border is: ``reflect``, or ``constant``, the mean color.
      resized_crop_area: least share of the image in a random rectangle that is enlarged to the whole; 1 turns it off.
        Of pictures that stay encoded and are resized by ``data.image_size``, the rectangle is cut out before that, on
        the host, and ``crop_padding`` acts on what is left.
      rotation: largest angle in degrees that an image is turned by, in [0, 180]; 0 turns it off.
      zoom: largest factor that an image is enlarged or shrunk by, 1 or more; 1 turns it off.
      flip: ``random`` mirrors half of the images left to right, ``alternating`` each one in every other epoch, ``none``
        none. Wrong for digits and letters.
      color_jitter: largest relative change of brightness, contrast and saturation, in [0, 1]; 0 turns it off.
      policy: ``none``, ``randaugment`` or ``trivialaugment``.
      randaugment_layers: operations one after another.
      randaugment_magnitude: mean strength of an operation, in [0, 10].
      randaugment_std: deviation of the strength.
      randaugment_probability: that an operation acts.
      erasing_probability: that a random rectangle of an image is covered; 0 turns it off.
      erasing_mode: ``constant`` covers with the mean color, ``pixel`` with noise.
      mixup_alpha: mixup's share of the other image is drawn from Beta(alpha, alpha); 0 turns it off.
      cutmix_alpha: the same for CutMix.
      mix_probability: that an image is mixed by either.
      mix_switch_probability: that it is CutMix, if both are on.
    """

    crop_padding: int = 4
    crop_mode: str = "reflect"
    resized_crop_area: float = 1.0
    rotation: float = 0.0
    zoom: float = 1.0
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

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.mix_probability > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The objective, the optimizer and its learning rate.

    Attributes:
      name: ``adamw``, ``sgd``, ``lion``, ``lamb``, or ``muon``, which takes the hidden matrices and leaves the rest to
        AdamW; see ``convnext_jax.optim.optimizer``.
      schedule: ``cosine``; ``step``, which falls at the ``decay_epochs``; ``one_cycle``, up and down; or
        ``warmup_stable_decay``, constant and then linear; see ``convnext_jax.optim.schedules``.
      learning_rate: its peak, reached at the end of the warm-up. One that suits ``adamw`` suits ``muon`` too. ``lion``
        takes a third to a tenth of it (Chen et al. 2023), ``sgd`` some 100 times as much.
      min_learning_rate: where the schedule ends; ``step`` does not use it.
      warmup_epochs: epochs, fractions allowed, of linear warm-up from 0; for ``one_cycle`` the way to the peak.
      decay_epochs: for ``step``: epochs, ascending, after which the learning rate is multiplied by the factor.
      decay_factor: for ``step``, in (0, 1).
      decay_fraction: for ``warmup_stable_decay``: share of the run, in (0, 1], in which the learning rate falls.
      weight_decay: of the kernels; norms, biases, layer scale and GRN have none. Decoupled, except for ``sgd``, where
        it is the gradient of an L2 penalty, as in the papers that train with SGD; 1e-4 is theirs.
      b1: decay of the first moment of ``adamw``, ``lamb`` and ``muon``'s AdamW, in [0, 1); for ``lion`` the share of
        the momentum in an update.
      b2: decay of the second moment of the same, in [0, 1); for ``lion`` the decay of the momentum, where its authors
        take 0.99.
      eps: denominator offset of the same, except ``lion``.
      momentum: of ``sgd`` and ``muon``, in [0, 1); Muon's author takes 0.95.
      nesterov: whether the momentum of ``sgd`` and ``muon`` looks a step ahead.
      clip_norm: largest global norm of the gradient; None does not clip.
      layer_decay: factor of the learning rate from each level of layers to the one before it, in (0, 1]. Below 1 the
        first layers of imported weights change least.
      layer_decay_levels: what a level is: ``grouped``, as facebookresearch/ConvNeXt has it, twelve levels after the
        stem's; or ``single``, as facebookresearch/ConvNeXt-V2 offers it, a level for each block.
      label_smoothing: share of the target spread evenly over all classes, in [0, 1).
      accumulation: parts that a batch is cut into, whose gradients are taken one after another and averaged, for
        batches that do not fit into memory.
      sam_rho: how far, in the parameters' Euclidean norm, sharpness-aware minimization climbs before it takes the
        gradient (twice the time of a step); 0 turns it off.
      ema_decay: decay of an exponential moving average of the parameters and the running statistics, evaluated and
        saved beside them, in [0, 1); 0 keeps none.
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
    layer_decay_levels: str = "grouped"
    label_smoothing: float = 0.1
    accumulation: int = 1
    sam_rho: float = 0.0
    ema_decay: float = 0.0


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run itself.

    Attributes:
      seed: from which, with the step, everything random is derived; 0 to 2^32 - 1.
      seeds: how many seeds are trained, ``seed``, ``seed + 1`` and so on, one after another. With more than one, each
        has a workdir of its own, ``seed_<n>``.
      epochs: passes over the training split.
      batch_size: images a step, over all devices together.
      eval_batch_size: images a step of evaluation, over all devices together. Changes no figure.
      eval_every_epochs: epochs between evaluations of the whole validation split, or of the test split if there is
        none. Each is followed by a checkpoint that carries its figures. The last epoch is always evaluated.
      checkpoint_minutes: minutes of training between checkpoints, besides those after evaluations; 0 for no others.
      checkpoint_steps: steps between checkpoints, rounded up to whole calls; 0 for none by steps.
      best_metric: the figure of these evaluations that says which checkpoint is the best, such as ``top1`` or
        ``ema/loss``. ``auto`` is the accuracy, that of the moving average if one is kept.
      keep_latest: how many of the latest checkpoints with figures are kept. The very latest is kept in any case.
      keep_best: how many of the best checkpoints are kept besides.
      image_sizes: sides in pixels that the training images are scaled to on the device, in equal parts of the run, such
        as ``(24, 32)``; their own size throughout if empty. Images that are evaluated are scaled to the last of them.
      on_divergence: what happens if a loss or a gradient is not finite: ``stop``, or ``rollback``, which goes on from
        the latest checkpoint with a lower learning rate.
      rollbacks: how often it may do so in a run.
      rollback_factor: by which the learning rate is multiplied each time, in (0, 1).
      fsdp: devices that share one copy of the parameters, their average and the optimizer's state, for networks that do
        not fit on one device; divides the number of devices.
      steps_per_dispatch: the most training steps that run on the device in one call, 512 at most. Changes no figure.
      tracker: where the figures go besides ``metrics.jsonl`` and TensorBoard: ``none``, ``wandb`` (Weights & Biases) or
        ``mlflow``. The variables of these say which server and project, such as ``WANDB_MODE`` and
        ``MLFLOW_TRACKING_URI``.
    """

    seed: int = 0
    seeds: int = 1
    epochs: int = 100
    batch_size: int = 128
    eval_batch_size: int = 500
    eval_every_epochs: int = 1
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int = 0
    best_metric: str = "auto"
    keep_latest: int = 2
    keep_best: int = 1
    image_sizes: tuple[int, ...] = ()
    on_divergence: str = "stop"
    rollbacks: int = 3
    rollback_factor: float = 0.5
    fsdp: int = 1
    steps_per_dispatch: int = 20
    tracker: str = "none"

    @property
    def evaluation_size(self) -> int | None:
        """Side in pixels that images are scaled to when they are evaluated; None keeps their own."""
        return self.image_sizes[-1] if self.image_sizes else None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All settings of a run; see the sections."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the settings as nested dictionaries of plain values, fit for JSON.

        The fields of the network's family stand beside the other fields of the model.
        """
        settings = dataclasses.asdict(self)
        settings["model"] |= settings["model"].pop("architecture")
        return settings


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "task": TaskConfig,
    "data": DataConfig,
    "augment": AugmentConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}
