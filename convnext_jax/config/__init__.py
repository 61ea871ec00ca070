"""The experiment: every setting of a run, typed, checked at once, and frozen.

A config file starts from :func:`default_config`, changes what it needs and returns the ``ConfigDict``. The command line
overrides fields of it. :func:`parse_experiment` turns the whole, once, into an :class:`Experiment`, which is all that
the rest of the package sees. Whatever can be known to be wrong without looking at the data is refused here.

Importing this package imports no JAX. Only the fields that a family of networks owns need it, to be checked.
"""

from convnext_jax.config.checks import CHOICES
from convnext_jax.config.parse import (
    NO_VALUE,
    check_field,
    default_config,
    may_be_none,
    own_field_kinds,
    parse_experiment,
    parse_sections,
    wrong_type,
)
from convnext_jax.config.sections import (
    SECTIONS,
    AugmentConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TaskConfig,
)

__all__ = [
    "CHOICES",
    "NO_VALUE",
    "SECTIONS",
    "AugmentConfig",
    "DataConfig",
    "Experiment",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "TaskConfig",
    "check_field",
    "default_config",
    "may_be_none",
    "own_field_kinds",
    "parse_experiment",
    "parse_sections",
    "wrong_type",
]
