"""Evaluation of a workdir's checkpoint, anywhere: needs the workdir and the data, no optimiser and no loop."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from convnext_jax import data
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset, Split
from convnext_jax.batches.resident import put_split
from convnext_jax.sharding import abstract, compute_dtype, make_mesh, replicated
from convnext_jax.errors import UserError
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.models import abstract_model, count_parameters
from convnext_jax.models.from_config import model_from_config
from convnext_jax.workdir.records import DatasetRecord, read_experiment, seed_runs, write_json


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run that has checkpoints, with its model ready to be evaluated on this machine's devices.

    Attributes:
      workdir: where it lies.
      experiment: its settings, with the place of the data on this machine.
      record: what it knows of its data.
      definition: the model without its parameters.
      like: shapes, dtypes and shardings of the model's parameters and of its running statistics.
      dtype: what the model computes in.
      mesh: the devices.
    """

    workdir: Path
    experiment: Experiment
    record: DatasetRecord
    definition: Any
    like: tuple[Any, Any]
    dtype: str
    mesh: Mesh

    @classmethod
    def open(cls, workdir: Path, *, data_dir: str | None, dtype: str | None) -> "SavedRun":
        """Opens a workdir of one seed; see :func:`evaluate_workdir` for the arguments and the errors."""
        experiment = read_experiment(workdir)
        record = DatasetRecord.read(workdir)
        if not (workdir / "checkpoints").is_dir():
            raise UserError(f"{workdir} has no checkpoints yet")
        if data_dir is not None:
            experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, data_dir=data_dir))
        mesh = make_mesh()
        dtype = compute_dtype(dtype or experiment.model.dtype)
        definition, *like = abstract_model(
            lambda: model_from_config(experiment.model, num_classes=len(record.class_names), dtype=dtype)
        )
        params, statistics = abstract(like, replicated(mesh))
        return cls(workdir, experiment, record, definition, (params, statistics), dtype, mesh)

    def checkpoints(self) -> Checkpoints:
        """The checkpoints, to be read."""
        return Checkpoints(self.workdir / "checkpoints", read_only=True)

    def select(self, which: str) -> int:
        """The step that ``latest``, ``best`` or a number means; see ``Checkpoints.select``."""
        with self.checkpoints() as checkpoints:
            return checkpoints.select(which)

    def restore(self, step: int, weights: str = "raw") -> tuple[Any, Any]:
        """Parameters, or with ``ema`` their average, and running statistics of a checkpoint, laid out as ``like``."""
        if weights == "ema" and not self.experiment.optim.ema_decay:
            raise UserError(f"--weights ema: the run in {self.workdir} keeps no average (config.optim.ema_decay=0)")
        with self.checkpoints() as checkpoints:
            return checkpoints.restore_model(step, *self.like, weights)

    def evaluate(
        self, params: Any, statistics: Any, dataset: Dataset, *, split: str, batch_size: int
    ) -> dict[str, Any]:
        """Evaluates parameters and running statistics, laid out as ``like``, on a whole split of the run's data set."""
        examples = self._examples(dataset, split)
        figures = evaluate_split(
            self.definition,
            params,
            put_split(examples, replicated(self.mesh)),
            statistics=statistics,
            mean=self.record.mean,
            std=self.record.std,
            batch_size=batch_size,
            mesh=self.mesh,
            image_size=self.experiment.run.evaluation_size,
        )
        return figures | {
            "parameters": count_parameters(params),
            "model": self.experiment.model.name,
            "dataset": self.record.name,
            "split": split,
            "dtype": self.dtype,
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        }

    def _examples(self, dataset: Dataset, split: str) -> Split:
        if dataset.class_names != self.record.class_names:
            raise UserError(
                f"{dataset.name} has other classes here than the run in {self.workdir} was trained on; see dataset.json"
            )
        examples: Split | None = getattr(dataset, split)
        if examples is None:
            fraction = self.experiment.data.validation_fraction
            without_folder = "; without a folder to test on the share is the test split" if fraction else ""
            raise UserError(
                f"--split {split}: the run in {self.workdir} has no validation split"
                f" (config.data.validation_fraction={fraction:g}{without_folder}); take test or train"
            )
        return examples


def evaluate_workdir(
    workdir: Path,
    *,
    which: str = "latest",
    weights: str = "raw",
    split: str = "test",
    data_dir: str | None = None,
    dtype: str | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Evaluates a checkpoint, or of several seeds the one of each, on a whole split.

    Args:
      workdir: a workdir of ``train.py``.
      which: ``latest``, ``best`` or a step.
      weights: ``raw``, or ``ema`` for the moving average of the parameters.
      split: ``test``, ``train``, or ``validation`` if the run held out one.
      data_dir: where the data are on this machine; where the config says if None.
      dtype: what to compute in; what the config says if None.
      batch_size: images at a time.

    Returns:
      What ``evaluation.json`` holds: ``top1``, ``top5`` (fractions), ``loss`` (nats), ``examples`` and what they
      speak of. Of several seeds: ``mean`` and ``std``, the sample standard deviation, of these figures, and under
      ``seeds`` the evaluation of each.

    Raises:
      UserError: no workdir, no such checkpoint, weights or split, or data that are missing or other than those trained
        on.
    """
    experiment = read_experiment(workdir)
    runs = [SavedRun.open(directory, data_dir=data_dir, dtype=dtype) for directory, _ in seed_runs(workdir, experiment)]
    steps = [run.select(which) for run in runs]
    if which == "latest" and len(set(steps)) > 1:
        raise UserError(
            f"{workdir}: the latest checkpoints of its seeds are of different steps ({', '.join(map(str, steps))});"
            f" train them to the end, or evaluate one: --workdir {runs[0].workdir}"
        )
    dataset = data.load(runs[0].experiment.data)  # the seeds differ in nothing else
    evaluations = [
        run.evaluate(*run.restore(step, weights), dataset, split=split, batch_size=batch_size)
        | {"step": step, "weights": weights}
        for run, step in zip(runs, steps, strict=True)
    ]
    if len(runs) == 1:
        return evaluations[0]
    names = ("top1", "top5", "loss")
    return over_seeds({name: evaluation[name] for name in names} for evaluation in evaluations) | {
        "split": split,
        "seeds": {str(run.experiment.run.seed): each for run, each in zip(runs, evaluations, strict=True)},
    }


def write_evaluation(evaluation: dict[str, Any], directory: Path) -> Path:
    """Writes ``evaluation.json`` into a folder, made where it does not exist, and returns its path."""
    path = directory / "evaluation.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, evaluation)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    return path
