"""What configuration a workdir belongs to: ``config.json``."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from convnext_jax.config import Experiment, parse_experiment
from convnext_jax.errors import UserError, writing
from convnext_jax.storage.checksums import sealed, unsealed
from convnext_jax.storage.files import write_json
from convnext_jax.workdir.migrations import FORMAT, Migrated, migrate

# How a run is carried out, not what it is: no parameter depends on these, so they may differ between two starts.
_NO_IDENTITY = (
    ("data", "data_dir"),
    ("data", "manual_dir"),
    ("data", "resident"),
    ("model", "remat"),
    ("run", "best_metric"),
    ("run", "checkpoint_minutes"),
    ("run", "checkpoint_steps"),
    ("run", "eval_batch_size"),
    ("run", "eval_every_epochs"),
    ("run", "fsdp"),
    ("run", "keep_best"),
    ("run", "keep_latest"),
    ("run", "on_divergence"),
    ("run", "rollback_factor"),
    ("run", "rollbacks"),
    ("run", "steps_per_dispatch"),
    ("run", "tracker"),
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


def check_claim(workdir: Path, experiment: Experiment, *, may_differ: Collection[str] = ()) -> None:
    """Raises UserError if the folder belongs to a sweep or another configuration, and lists the fields that differ.

    A folder in which neither has begun belongs to nobody.

    Args:
      workdir: the folder.
      experiment: the configuration.
      may_differ: fields, ``section.field``, that may differ.
    """
    if (workdir / "sweep.json").exists():
        raise UserError(f"{workdir} is the folder of a sweep; choose another --workdir")
    if not has_begun(workdir) or not (workdir / "config.json").exists():
        return
    if reason := _read_config(workdir).finished_because:
        raise UserError(f"{workdir} cannot be trained on: {reason}")
    there, here = identity(read_experiment(workdir)), identity(experiment)
    missing = "no such field"
    differing = [
        f"{name}: {there.get(name, missing)!r} there, {here.get(name, missing)!r} now"
        for name in dict.fromkeys([*here, *there])
        if name not in may_differ and there.get(name, missing) != here.get(name, missing)
    ]
    if differing:
        raise UserError(
            f"{workdir} belongs to another configuration ({'; '.join(differing)}); choose another --workdir"
        )


def write_claim(workdir: Path, experiment: Experiment) -> None:
    """Creates the folder and writes ``config.json``; raises UserError if it cannot be written."""
    with writing(workdir, "--workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", sealed({"format": FORMAT, **experiment.to_dict()}))


def has_begun(workdir: Path) -> bool:
    """Returns whether a run has begun there. One that was refused for a mistake left no record of its data."""
    return (workdir / "dataset.json").exists()


def read_experiment(workdir: Path, *, data_dir: str | None = None) -> Experiment:
    """Returns the configuration that a workdir belongs to.

    Args:
      workdir: the workdir.
      data_dir: where the data are on this machine; None is where the configuration says.

    Raises:
      UserError: it is no workdir, or its ``config.json`` cannot be understood.
    """
    sections = _read_config(workdir).sections
    try:
        experiment = parse_experiment(sections)
    except UserError as error:
        raise UserError(f"{workdir / 'config.json'}: {error}") from error
    if data_dir is None:
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, data_dir=data_dir))


def read_one_seed(workdir: Path, *, data_dir: str | None = None) -> Experiment:
    """Returns the configuration of a workdir of one seed; see `read_experiment`.

    Raises:
      UserError: it is no workdir, or one of several seeds.
    """
    experiment = read_experiment(workdir, data_dir=data_dir)
    if experiment.run.seeds > 1:
        raise UserError(
            f"{workdir} holds {experiment.run.seeds} seeds; take one of them, such as"
            f" {workdir}/seed_{experiment.run.seed}"
        )
    return experiment


def _read_config(workdir: Path) -> Migrated:
    path = workdir / "config.json"
    try:
        return migrate(unsealed(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{workdir} is no workdir of train.py: there is no {path}") from None
    except (OSError, ValueError, UserError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or take another --workdir") from error
