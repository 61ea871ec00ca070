"""What settings may be: names from closed tables, numbers in their ranges, and none that contradict each other."""

import math

from convnext_jax.config.sections import Experiment, OptimConfig, RunConfig
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


def check_choices(experiment: Experiment) -> None:
    """Raises UserError where a name is not in its table."""
    for (section, name), allowed in CHOICES.items():
        value = getattr(getattr(experiment, section), name)
        if value not in allowed:
            raise UserError(f"config.{section}.{name}={value!r}: unknown; {nearest(value, allowed)}")


def check_ranges(experiment: Experiment) -> None:
    """Raises UserError where a number is out of its range."""
    for (section, name), (low, high, closed) in _RANGES.items():
        value = getattr(getattr(experiment, section), name)
        if value is not None and not (low <= value and (value <= high if closed else value < high)):
            allowed = f"in [{low}, {high}{']' if closed else ')'}" if high < math.inf else f"at least {low}"
            raise UserError(f"config.{section}.{name}={value!r}: must be {allowed}")
    for section, name in _POSITIVE:
        value = getattr(getattr(experiment, section), name)
        if value is not None and value <= 0:
            raise UserError(f"config.{section}.{name}={value!r}: must be greater than 0")


def check_combinations(experiment: Experiment) -> None:
    """Raises UserError where settings contradict each other; the message names them all."""
    model, augment, optim, run = experiment.model, experiment.augment, experiment.optim, experiment.run
    if run.seed + run.seeds > 2**32:
        raise UserError(
            f"config.run.seeds={run.seeds} from config.run.seed={run.seed} on go beyond 4294967295; start lower"
        )
    if augment.mixes and run.batch_size % 2:
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
    if optim.ema_decay and model.norm == "batch":
        raise UserError(
            f"config.optim.ema_decay={optim.ema_decay:g} averages parameters, to which the running statistics of"
            " config.model.norm='batch' would not belong; leave one of them"
        )
    if len(run.image_sizes) > run.epochs or not all(1 <= size <= 4096 for size in run.image_sizes):
        raise UserError(
            f"config.run.image_sizes={run.image_sizes}: must be in [1, 4096], at most one for each of"
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
