"""The folder of a run: what it belongs to, and the files that say so."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convnext_jax.config import Experiment, parse_experiment
from convnext_jax.data import Dataset
from convnext_jax.errors import UserError

# Where the data lie is no part of what a run is: it may move between two starts, and to another machine.
_LOCATIONS = (("data", "data_dir"), ("data", "manual_dir"))


def identity(experiment: Experiment) -> dict[str, Any]:
    """The fields that make a run what it is, ``{"section.field": value}``."""
    return {
        f"{section}.{name}": value
        for section, fields in experiment.to_dict().items()
        for name, value in fields.items()
        if (section, name) not in _LOCATIONS
    }


def short_hash(experiment: Experiment) -> str:
    """Eight hexadecimal digits that follow from ``identity``."""
    return hashlib.sha256(json.dumps(identity(experiment), sort_keys=True).encode()).hexdigest()[:8]


def default_workdir(config_path: str, experiment: Experiment) -> Path:
    """``runs/<config name>-<short hash of the configuration>``."""
    return Path("runs") / f"{Path(config_path.partition(':')[0]).stem}-{short_hash(experiment)}"


def seed_runs(workdir: Path, experiment: Experiment) -> list[tuple[Path, Experiment]]:
    """The workdir and the experiment of each seed of an experiment.

    With one seed these are the ones given; of several each has the folder ``seed_<n>``, and is the run that
    ``run.seed=<n>`` with ``run.seeds=1`` would be.
    """
    run = experiment.run
    if run.seeds == 1:
        return [(workdir, experiment)]
    return [
        (workdir / f"seed_{seed}", dataclasses.replace(experiment, run=dataclasses.replace(run, seed=seed, seeds=1)))
        for seed in range(run.seed, run.seed + run.seeds)
    ]


def claim(workdir: Path, experiment: Experiment) -> None:
    """Makes the folder and writes ``config.json``, or finds that it belongs to this very configuration.

    Raises:
      UserError: the folder belongs to another configuration (the message lists the fields that differ), or cannot be
        written.
    """
    path = workdir / "config.json"
    if path.exists() and has_begun(workdir):
        there, here = identity(read_experiment(workdir)), identity(experiment)
        differing = [f"{name}: {there[name]!r} there, {here[name]!r} now" for name in here if there[name] != here[name]]
        if differing:
            raise UserError(
                f"{workdir} belongs to another configuration ({'; '.join(differing)}); choose another --workdir"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, experiment.to_dict())
    except OSError as error:
        raise UserError(f"{workdir} cannot be written ({error.strerror}); choose another --workdir") from error


def has_begun(workdir: Path) -> bool:
    """Whether a run has been started there; one that was refused for a mistake left no record of its data."""
    return (workdir / "dataset.json").exists()


def read_experiment(workdir: Path) -> Experiment:
    """The configuration that a workdir belongs to.

    Raises:
      UserError: it is no workdir, or its ``config.json`` cannot be understood.
    """
    path = workdir / "config.json"
    try:
        return parse_experiment(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{workdir} is no workdir of train.py: there is no {path}") from None
    except (json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What a run needs to know again of the data that it was trained on; kept in ``dataset.json``.

    Attributes:
      name: the data set.
      class_names: one for each class, in the order of the logits.
      mean: channel means that the images were normalised with.
      std: channel deviations that the images were normalised with.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetRecord":
        """The record of a data set."""
        mean, std = (tuple(map(float, statistic)) for statistic in (dataset.mean, dataset.std))
        return cls(dataset.name, dataset.class_names, mean, std)

    @classmethod
    def read(cls, workdir: Path) -> "DatasetRecord":
        """The record of a workdir; raises UserError where there is none."""
        path = workdir / "dataset.json"
        try:
            fields = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{path} cannot be read ({error}); the run has not started yet") from error
        return cls(fields["name"], *(tuple(fields[name]) for name in ("class_names", "mean", "std")))

    def write(self, workdir: Path) -> None:
        """Writes the record into a workdir."""
        write_json(workdir / "dataset.json", dataclasses.asdict(self))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
