"""The experiment: every setting of a run, typed, checked at once and frozen.

A config file starts from :func:`default_config`, changes what it needs and returns the ``ConfigDict``. The command
line overrides fields of it, and :func:`parse_experiment` turns the whole, once, into an :class:`Experiment`, which is
all that the rest of the package sees. Whatever can be known to be wrong without looking at the data is refused here.
"""

from convnext_jax.config.checks import CHOICES, DTYPES, INITIALIZATIONS, OPTIMIZERS, SCHEDULES
from convnext_jax.config.parse import check_field, default_config, parse_experiment
from convnext_jax.config.sections import (
    SECTIONS,
    AugmentConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    OptimConfig,
    RunConfig,
)

__all__ = [
    "CHOICES",
    "DTYPES",
    "INITIALIZATIONS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SECTIONS",
    "AugmentConfig",
    "DataConfig",
    "Experiment",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "check_field",
    "default_config",
    "parse_experiment",
]
