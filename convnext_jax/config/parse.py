"""From a ``ConfigDict`` to a checked experiment."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from convnext_jax.config.checks import check_choice, check_choices, check_combinations, check_ranges
from convnext_jax.config.sections import SECTIONS, Experiment, ModelConfig
from convnext_jax.errors import UserError, nearest

NO_VALUE = ("None", "none", "")  # how a command line leaves out a field that may be None
SHARED_MODEL_FIELDS = tuple(field.name for field in dataclasses.fields(ModelConfig) if field.name != "architecture")

Values = config_dict.ConfigDict | Mapping[str, Any]


def default_config() -> config_dict.ConfigDict:
    """Returns every field at its default, for a config file to start from.

    A field that does not exist cannot be set. The section ``model`` takes any field, since its family is not known yet;
    :func:`parse_experiment` checks them.
    """
    config = config_dict.ConfigDict()
    for section, cls in SECTIONS.items():
        config[section] = fields = config_dict.ConfigDict()
        for field in dataclasses.fields(cls):
            if (section, field.name) == ("model", "architecture"):
                continue
            kind, optional = _kind(field)
            fields[field.name] = config_dict.placeholder(kind) if optional else field.default
    config.lock()
    model: Any = config.model
    model.unlock()
    return config


def parse_experiment(config: Values) -> Experiment:
    """Turns a configuration into a checked :class:`Experiment`.

    Args:
      config: sections by name, each a mapping from field to value. What is left out keeps its default.

    Raises:
      UserError: a section or field that does not exist, a value of the wrong type or out of range, or two values that
        contradict each other. The message names the field, the value and what is allowed.
    """
    sections = parse_sections(config)
    shared, model = sections.pop("model"), _section_values(config, "model")

    from convnext_jax.models.registry import INITIALIZATIONS  # imports JAX

    check_choice("config.model.initialization", shared["initialization"], INITIALIZATIONS)
    own = {name: value for name, value in model.items() if name not in SHARED_MODEL_FIELDS and value is not None}
    return Experiment(model=ModelConfig(**shared, architecture=_parse_architecture(shared["name"], own)), **sections)


def parse_sections(config: Values) -> dict[str, Any]:
    """Parses and checks all that needs no network, in an instant: every field but those of the network's family.

    Returns:
      The sections by name; of the model a dictionary of the fields that all families share.
    """
    values = config.to_dict() if isinstance(config, config_dict.ConfigDict) else dict(config)
    for section in values:
        if section not in SECTIONS:
            check_field(section)
    sections: dict[str, Any] = {}
    for section, cls in SECTIONS.items():
        fields = {field.name: field for field in dataclasses.fields(cls) if field.name != "architecture"}
        given = {
            name: value
            for name, value in _section_values(values, section).items()
            if section != "model" or name in fields
        }
        for name in given:
            check_field(f"{section}.{name}")
        parsed = {
            name: _parse_value(f"config.{section}.{name}", value, *_kind(fields[name])) for name, value in given.items()
        }
        if section == "model":
            sections[section] = {name: field.default for name, field in fields.items()} | parsed
        else:
            sections[section] = cls(**parsed)
    check_choices(sections)
    check_ranges(sections)
    check_combinations(sections["task"], sections["augment"], sections["optim"], sections["run"])
    return sections


def check_field(path: str) -> None:
    """Raises UserError if ``section.field`` is no field of an experiment. The model's may belong to any family."""
    section, _, name = path.partition(".")
    if section not in SECTIONS:
        raise UserError(f"config.{path}: there is no section {section!r}; {nearest(section, SECTIONS)}")
    names = [field.name for field in dataclasses.fields(SECTIONS[section])]
    if section != "model" and name not in names:
        raise UserError(f"config.{path}: there is no such field; {nearest(name, names)}")
    if not name.isidentifier() or hasattr(config_dict.ConfigDict, name):
        raise UserError(f"config.{path}: no field can have this name; a field is given as a whole, config.model.NAME")


def may_be_none(path: str) -> bool:
    """Returns whether ``section.field`` is a field that may be None. The network's own may not."""
    section, _, name = path.partition(".")
    fields = dataclasses.fields(SECTIONS[section])
    return any(_kind(field)[1] for field in fields if field.name == name)


def wrong_type(path: str, value: object, kind: type, optional: bool) -> str:
    """Returns the message about a value of the wrong type.

    >>> wrong_type("config.run.epochs", 1.5, int, False)
    'config.run.epochs=1.5: must be of type int'
    """
    return f"{path}={value!r}: must be of type {kind.__name__}{' or none' if optional else ''}"


def own_field_kinds(model: str) -> dict[str, type]:
    """Returns the types of the fields that the family of a named model owns; imports JAX.

    >>> own_field_kinds("lenet5")
    {'dims': <class 'tuple'>, 'hidden': <class 'int'>}

    Raises:
      UserError: there is no such model.
    """
    from convnext_jax.models.registry import named_architecture

    try:
        return {field.name: _kind(field)[0] for field in dataclasses.fields(named_architecture(model))}
    except UserError as error:
        raise UserError(f"config.model.name: {error}") from error


def _section_values(config: Values, section: str) -> Mapping[str, Any]:
    values = config.to_dict() if isinstance(config, config_dict.ConfigDict) else config
    fields = values.get(section)
    if fields is not None and not isinstance(fields, Mapping):
        raise UserError(f"config.{section}={fields!r:.80}: must be a section with fields")
    return fields or {}


def _parse_architecture(model: str, own: Mapping[str, Any]) -> Any:
    kinds = own_field_kinds(model)
    known = [*SHARED_MODEL_FIELDS, *kinds]
    for name in own:
        if name not in kinds:
            raise UserError(f"config.model.{name}: {model} has no such field; {nearest(name, known)}")
    fields = {
        name: _parse_value(f"config.model.{name}", value, kinds[name], optional=False) for name, value in own.items()
    }
    from convnext_jax.models.registry import named_architecture

    try:
        return named_architecture(model, fields)
    except UserError as error:
        raise UserError(f"config.model.{error}") from error


def _kind(field: dataclasses.Field[Any]) -> tuple[type, bool]:
    """Returns the plain type of a field, ``tuple`` for whole numbers, and whether it may be None."""
    kind, optional = field.type, isinstance(field.type, types.UnionType)
    if optional:
        (kind,) = (member for member in typing.get_args(kind) if member is not types.NoneType)
    return typing.cast(type, typing.get_origin(kind) or kind), optional


def _parse_value(path: str, value: Any, kind: type, optional: bool) -> Any:
    if optional and (value is None or value in NO_VALUE):
        return None
    # A whole number is a fine float, but True is no number and 1.5 no count.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise UserError(f"{path}={str(value)[:20]}...: must be a finite number") from None
    if kind is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        # JSON has no tuples.
        return tuple(_parse_value(f"{path}[{index}]", item, int, False) for index, item in enumerate(value))
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(wrong_type(path, value, kind, optional))
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path}={value!r}: must be a finite number")
    return value
