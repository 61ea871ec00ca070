"""The files that say what a workdir belongs to: ``config.json`` and ``dataset.json``."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from convnext_jax.batches.preprocess import Normalization
from convnext_jax.config import Experiment, parse_experiment
from convnext_jax.data import Dataset
from convnext_jax.errors import UserError
from convnext_jax.files import write_json
from convnext_jax.workdir.migrations import FORMAT, Migrated, migrate

# No figure depends on these. Where the data are may differ between two starts, and on another machine.
_NO_IDENTITY = (
    ("data", "data_dir"),
    ("data", "manual_dir"),
    ("run", "best_metric"),
    ("run", "steps_per_dispatch"),
)


def identity(experiment: Experiment) -> dict[str, Any]:
    """Returns the fields that make a run what it is, ``{"section.field": value}``."""
    return {
        f"{section}.{name}": value
        for section, fields in experiment.to_dict().items()
        for name, value in fields.items()
        if (section, name) not in _NO_IDENTITY
    }


def short_hash(experiment: Experiment) -> str:
    """Returns eight hexadecimal digits that follow from `identity`."""
    return hashlib.sha256(json.dumps(identity(experiment), sort_keys=True).encode()).hexdigest()[:8]


def default_workdir(config_path: str, experiment: Experiment, runs: Path = Path("runs")) -> Path:
    """Returns ``runs/<config name>-<short hash of the configuration>``.

    A run that an earlier version began under another hash is found by its configuration, and goes on where it is.
    """
    name = Path(config_path.partition(":")[0]).stem
    usual = runs / f"{name}-{short_hash(experiment)}"
    if not usual.exists():
        for workdir in sorted(runs.glob(f"{name}-????????")):
            try:
                if identity(read_experiment(workdir)) == identity(experiment):
                    return workdir
            except UserError:
                continue
    return usual


def seed_runs(workdir: Path, experiment: Experiment) -> list[tuple[Path, Experiment]]:
    """Returns the workdir and the experiment of each seed of an experiment.

    With one seed these are the ones given. With several, each has the folder ``seed_<n>``, and is the run that
    ``run.seed=<n>`` with ``run.seeds=1`` would be.
    """
    run = experiment.run
    if run.seeds == 1:
        return [(workdir, experiment)]
    return [
        (workdir / f"seed_{seed}", dataclasses.replace(experiment, run=dataclasses.replace(run, seed=seed, seeds=1)))
        for seed in range(run.seed, run.seed + run.seeds)
    ]


def check_claim(workdir: Path, experiment: Experiment) -> None:
    """Raises UserError if the folder belongs to another configuration, and lists the fields that differ.

    A folder in which no run has begun belongs to nobody.
    """
    if not has_begun(workdir) or not (workdir / "config.json").exists():
        return
    if reason := _read_config(workdir).finished_because:
        raise UserError(f"{workdir} cannot be trained on: {reason}")
    there, here = identity(read_experiment(workdir)), identity(experiment)
    missing = "no such field"
    differing = [
        f"{name}: {there.get(name, missing)!r} there, {here.get(name, missing)!r} now"
        for name in dict.fromkeys([*here, *there])
        if there.get(name, missing) != here.get(name, missing)
    ]
    if differing:
        raise UserError(
            f"{workdir} belongs to another configuration ({'; '.join(differing)}); choose another --workdir"
        )


def write_claim(workdir: Path, experiment: Experiment) -> None:
    """Creates the folder and writes ``config.json``; raises UserError if it cannot be written."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", {"format": FORMAT, **experiment.to_dict()})
    except OSError as error:
        raise UserError(f"{workdir} cannot be written ({error.strerror}); choose another --workdir") from error


def has_begun(workdir: Path) -> bool:
    """Returns whether a run has begun there. One that was refused for a mistake left no record of its data."""
    return (workdir / "dataset.json").exists()


def read_experiment(workdir: Path) -> Experiment:
    """Returns the configuration that a workdir belongs to.

    Raises:
      UserError: it is no workdir, or its ``config.json`` cannot be understood.
    """
    return parse_experiment(_read_config(workdir).sections)


def _read_config(workdir: Path) -> Migrated:
    path = workdir / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no settings")
        return migrate(content)
    except FileNotFoundError:
        raise UserError(f"{workdir} is no workdir of train.py: there is no {path}") from None
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """What a run needs to know of the data that it was trained on, kept in ``dataset.json``.

    Attributes:
      name: the data set.
      class_names: one for each class, in the order of the logits.
      mean: channel means that the images were normalized with.
      std: channel deviations that the images were normalized with.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def normalization(self) -> Normalization:
        """The means and deviations together."""
        return Normalization(self.mean, self.std)

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetRecord":
        """Returns the record of a data set."""
        mean, std = (tuple(map(float, statistic)) for statistic in (dataset.mean, dataset.std))
        return cls(dataset.name, dataset.class_names, mean, std)

    @classmethod
    def read(cls, workdir: Path) -> "DatasetRecord":
        """Returns the record of a workdir; raises UserError if there is none."""
        path = workdir / "dataset.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(fields["name"], *(tuple(fields[name]) for name in ("class_names", "mean", "std")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} cannot be read ({error}); the run has not started yet") from error

    def write(self, workdir: Path) -> None:
        """Writes the record into a workdir."""
        write_json(workdir / "dataset.json", dataclasses.asdict(self))
