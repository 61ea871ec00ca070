"""The settings of a run, typed and frozen, section by section."""

import dataclasses
from typing import Any


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
        about a third more arithmetic (benchmarks/remat.md).
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

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return self.mix_probability > 0 and (self.mixup_alpha > 0 or self.cutmix_alpha > 0)


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

    @property
    def evaluation_size(self) -> int | None:
        """Side in pixels that images are scaled to when they are evaluated; None keeps their own."""
        return self.image_sizes[-1] if self.image_sizes else None


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
