"""What settings may be: names from closed tables, numbers in their ranges, and no two that contradict each other."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from convnext_jax.config.sections import AugmentConfig, OptimConfig, RunConfig, TaskConfig
from convnext_jax.errors import UserError, nearest
from convnext_jax.precision import DTYPES

OPTIMIZERS = ("adamw", "sgd", "lion", "lamb", "muon")
PIXEL_LOSSES = ("cross_entropy", "dice", "focal", "lovasz")
SCHEDULES = ("cosine", "step", "one_cycle", "warmup_stable_decay")
# (section, field): the names that it may have. The network's own are in its family's file.
CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("model", "dtype"): DTYPES,
    ("task", "name"): ("classification", "segmentation", "multitask"),
    ("task", "head"): ("fpn", "upernet"),
    ("task", "dice_over"): ("image", "batch"),
    ("data", "resident"): ("auto", "always", "never"),
    ("augment", "crop_mode"): ("reflect", "constant"),
    ("augment", "flip"): ("random", "alternating", "none"),
    ("augment", "policy"): ("none", "randaugment", "trivialaugment"),
    ("augment", "erasing_mode"): ("constant", "pixel"),
    ("optim", "name"): OPTIMIZERS,
    ("optim", "schedule"): SCHEDULES,
    ("optim", "layer_decay_levels"): ("grouped", "single"),
    ("run", "on_divergence"): ("stop", "rollback"),
    ("run", "tracker"): ("none", "wandb", "mlflow"),
}

# (section, field): (lowest, highest, whether the highest itself is allowed)
_RANGES: dict[tuple[str, str], tuple[float, float, bool]] = {
    ("model", "drop_path"): (0, 1, False),
    ("model", "dropout"): (0, 1, False),
    ("task", "head_channels"): (1, 2**14, True),
    **{("task", f"{loss}_weight"): (0, math.inf, False) for loss in PIXEL_LOSSES},
    ("task", "focal_gamma"): (0, 100, True),
    ("task", "auxiliary_weight"): (0, math.inf, False),
    ("task", "classification_weight"): (0, math.inf, False),
    ("data", "image_size"): (1, 4096, True),
    ("data", "channels"): (1, 4, True),
    ("data", "validation_fraction"): (0, 1, False),
    ("augment", "crop_padding"): (0, 4096, True),
    ("augment", "resized_crop_area"): (0, 1, True),
    ("augment", "rotation"): (0, 180, True),
    ("augment", "zoom"): (1, 16, True),
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
    ("run", "checkpoint_minutes"): (0, math.inf, False),
    ("run", "checkpoint_steps"): (0, 10**9, True),
    ("run", "keep_latest"): (1, 10**6, True),
    ("run", "keep_best"): (0, 10**6, True),
    ("run", "rollbacks"): (1, 100, True),
    ("run", "rollback_factor"): (0, 1, False),
    ("run", "fsdp"): (1, 2**20, True),
    ("run", "steps_per_dispatch"): (1, 10**6, True),
}
_POSITIVE = (
    ("task", "dice_smoothing"),
    ("augment", "resized_crop_area"),
    ("optim", "learning_rate"),
    ("optim", "decay_factor"),
    ("optim", "decay_fraction"),
    ("optim", "eps"),
    ("optim", "clip_norm"),
    ("optim", "layer_decay"),
)


def check_choices(sections: Mapping[str, Any]) -> None:
    """Raises UserError if a name is not in its table."""
    for (section, name), allowed in CHOICES.items():
        check_choice(f"config.{section}.{name}", _value(sections, section, name), allowed)


def check_choice(path: str, value: str, allowed: Iterable[str]) -> None:
    """Raises UserError if a value is none of those that are allowed."""
    if value not in (names := tuple(allowed)):
        raise UserError(f"{path}={value!r}: unknown; {nearest(value, names)}")


def check_ranges(sections: Mapping[str, Any]) -> None:
    """Raises UserError if a number is out of its range."""
    for (section, name), (low, high, closed) in _RANGES.items():
        value = _value(sections, section, name)
        if value is not None and not (low <= value and (value <= high if closed else value < high)):
            allowed = f"in [{low}, {high}{']' if closed else ')'}" if high < math.inf else f"at least {low}"
            raise UserError(f"config.{section}.{name}={value!r}: must be {allowed}")
    for section, name in _POSITIVE:
        value = _value(sections, section, name)
        if value is not None and value <= 0:
            raise UserError(f"config.{section}.{name}={value!r}: must be greater than 0")


def _value(sections: Mapping[str, Any], section: str, name: str) -> Any:
    """The model's section is a dictionary, since its family is not known yet."""
    fields = sections[section]
    return fields[name] if isinstance(fields, dict) else getattr(fields, name)


def check_combinations(task: TaskConfig, augment: AugmentConfig, optim: OptimConfig, run: RunConfig) -> None:
    """Raises UserError if settings contradict each other. The message names all of them."""
    _check_task(task, augment, run)
    if run.seed + run.seeds > 2**32:
        raise UserError(
            f"config.run.seeds={run.seeds} from config.run.seed={run.seed} on goes beyond 4294967295; start lower"
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


def _check_task(task: TaskConfig, augment: AugmentConfig, run: RunConfig) -> None:
    """Checks what a task needs of the other settings."""
    if not task.has_masks:
        default = TaskConfig()
        for field in dataclasses.fields(task):
            if field.name != "name" and (value := getattr(task, field.name)) != getattr(default, field.name):
                raise UserError(f"config.task.{field.name}={value!r} is for masks; set config.task.name=segmentation")
        return
    names = task.loss.split("+")
    for name in names:
        check_choice("config.task.loss", name, PIXEL_LOSSES)
    if len(set(names)) < len(names) or not any(weight for _, weight in task.losses):
        raise UserError(f"config.task.loss={task.loss!r}: each loss once, and one at least with a weight above 0")
    images_alone = {
        "config.augment.policy": (augment.policy, augment.policy != "none"),
        "config.augment.erasing_probability": (augment.erasing_probability, augment.erasing_probability > 0),
        "config.augment.mixup_alpha": (augment.mixup_alpha, augment.mixes and augment.mixup_alpha > 0),
        "config.augment.cutmix_alpha": (augment.cutmix_alpha, augment.mixes and augment.cutmix_alpha > 0),
        "config.run.image_sizes": (run.image_sizes, bool(run.image_sizes)),
    }
    for path, (value, is_on) in images_alone.items():
        if is_on:
            raise UserError(f"{path}={value}: masks cannot follow that; it is for config.task.name=classification")


def _check_schedule(optim: OptimConfig, run: RunConfig) -> None:
    """Checks what a schedule needs of its own fields."""
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
                f"config.optim.decay_epochs={decays}: must be after the warm-up of config.optim.warmup_epochs="
                f"{warmup:g} and before the end of the run at {end}"
            )
    if optim.schedule == "one_cycle" and not 0 < warmup < run.epochs:
        raise UserError(
            f"config.optim.schedule=one_cycle peaks at config.optim.warmup_epochs={warmup:g}, which must be between"
            f" 0 and {end}"
        )
    # Parts of an epoch are not exact binary fractions.
    if optim.schedule == "warmup_stable_decay" and warmup + optim.decay_fraction * run.epochs > run.epochs + 1e-6:
        raise UserError(
            f"config.optim.warmup_epochs={warmup:g} reaches into the last config.optim.decay_fraction="
            f"{optim.decay_fraction:g} of {end}; shorten one or train longer"
        )
