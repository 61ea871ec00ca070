"""From a ``ConfigDict`` to a checked experiment."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from convnext_jax.config.checks import check_choices, check_combinations, check_ranges
from convnext_jax.config.sections import SECTIONS, Experiment
from convnext_jax.errors import UserError, nearest


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
    check_choices(experiment)
    check_ranges(experiment)
    check_combinations(experiment)
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
