"""The points of a sweep: read from its file, resolved, and all checked before the first one starts."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convnext_jax.config import Experiment
from convnext_jax.data.load import holds_out_test
from convnext_jax.data.registry import FOLDER_NAMES
from convnext_jax.errors import UserError
from convnext_jax.tools.command_line import check_names, load_experiment
from convnext_jax.tools.python_file import run_file
from convnext_jax.tools.shipped import find_file
from convnext_jax.workdir.claim import identity, short_hash
from convnext_jax.workdir.tracking import check_tracker


@dataclasses.dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
      values: its values of the fields that the sweep sets and in which its points differ, by ``section.field``.
      arguments: those of ``train.py`` for it, without its workdir.
      experiment: the settings that they come to.
      workdir: its folder.
    """

    values: Mapping[str, Any]
    arguments: tuple[str, ...]
    experiment: Experiment
    workdir: Path

    @property
    def log(self) -> Path:
        """What ``train.py`` prints."""
        return self.workdir / "train.log"

    @property
    def summary(self) -> Path:
        """What ``train.py`` writes at its end."""
        return self.workdir / "summary.json"

    @property
    def label(self) -> str:
        """Its values in a few words."""
        return in_words(self.values) or "the only point"


def in_words(values: Mapping[str, Any]) -> str:
    """Returns values by ``section.field`` in words, without the sections."""
    return ", ".join(f"{_leaf(name)}={value}" for name, value in values.items())


def read_points(file: Path, overrides: Sequence[str], workdir: Path) -> list[Point]:
    """Reads a sweep and checks all that can be checked without its data.

    Args:
      file: a Python file with ``BASE``, the path of a config file, and ``POINTS``, a list of what each point sets,
        ``{"section.field": value}``.
      overrides: ``--config.section.field=value`` and the like, for every point; they win over what it sets itself.
      workdir: the folder of the sweep.

    Raises:
      UserError: no sweep in the file, a point that is wrong or there twice, or points that have no validation split in
        common.
    """
    base, settings = _read_file(file)
    resolved: list[tuple[tuple[str, ...], Experiment]] = []
    for number, values in enumerate(settings, 1):
        flags = [*(f"--config.{name}={value}" for name, value in values.items()), *overrides]
        try:
            experiment = load_experiment(base, flags)
            check_names(experiment)
            _check_validation(experiment)
            check_tracker(experiment.run.tracker)
        except UserError as error:
            raise UserError(f"{file}, point {number}: {error}") from error
        resolved.append((("--config", base, *flags), experiment))
    experiments = [experiment for _, experiment in resolved]
    _check_differing(file, experiments)
    set_somewhere = dict.fromkeys(itertools.chain.from_iterable(settings))
    identities = [identity(experiment) for experiment in experiments]
    names = [name for name in set_somewhere if len({repr(fields.get(name)) for fields in identities}) > 1]
    return [
        _point({name: fields[name] for name in names if name in fields}, arguments, experiment, workdir)
        for fields, (arguments, experiment) in zip(identities, resolved, strict=True)
    ]


def _point(values: dict[str, Any], arguments: tuple[str, ...], experiment: Experiment, workdir: Path) -> Point:
    text = "-".join(f"{_leaf(name)}={value}" for name, value in values.items()) or "point"
    readable = re.sub(r"[^\w.+=-]+", "_", text)[:80]
    return Point(values, arguments, experiment, workdir / f"{readable}-{short_hash(experiment)}")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _read_file(file: Path) -> tuple[str, list[dict[str, Any]]]:
    content = run_file(find_file(file, "sweeps"))
    base, settings = content.get("BASE"), content.get("POINTS")
    if not isinstance(base, str) or not isinstance(settings, list) or not settings:
        raise UserError(
            f'{file} is no sweep: it needs BASE = "configs/digits.py", a config file, and'
            ' POINTS = [{"optim.learning_rate": 1e-3}, ...], what each point sets'
        )
    for number, values in enumerate(settings, 1):
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise UserError(f'{file}, point {number}: {values!r} is no dictionary {{"section.field": value}}')
    return base, settings


def _check_differing(file: Path, experiments: Sequence[Experiment]) -> None:
    """Refuses a point that is there twice, and points that would be judged on different examples."""
    numbers: dict[str, int] = {}
    for number, experiment in enumerate(experiments, 1):
        first = numbers.setdefault(short_hash(experiment), number)
        if first != number:
            raise UserError(f"{file}: points {first} and {number} are the same configuration; remove one")
    if len({(experiment.data.name, experiment.data.validation_fraction) for experiment in experiments}) > 1:
        raise UserError(
            f"{file}: the points differ in config.data.name or config.data.validation_fraction, and accuracies on"
            " different validation splits cannot be compared; give one of each for all"
        )


def _check_validation(experiment: Experiment) -> None:
    """Refuses what would be judged by the test split."""
    data = experiment.data
    if not data.validation_fraction:
        raise UserError(
            "a sweep is judged on a validation split, never on test; hold one out of train, for example"
            " --config.data.validation_fraction=0.1"
        )
    if holds_out_test(data):
        there = f"{data.data_dir} has no folder val/, validation/ or test/"
        there = there if data.name in FOLDER_NAMES else f"{data.name} has no split to test on"
        remedy = "add a folder test/" if data.name in FOLDER_NAMES else "take another data set"
        raise UserError(
            f"{there}, so config.data.validation_fraction makes the test split, and a sweep is never judged on that;"
            f" {remedy}"
        )
