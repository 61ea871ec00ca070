"""Evaluation of a workdir's checkpoint, anywhere. It needs the workdir and the data, no optimizer and no loop."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from convnext_jax import data
from convnext_jax.batches.resident import put_split
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset, Split
from convnext_jax.errors import UserError, first_line, writing
from convnext_jax.evaluate.seeds import over_seeds
from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models.parameters import AbstractModel, abstract_model, count_parameters
from convnext_jax.models.registry import create_model
from convnext_jax.precision import Precision, precision_of
from convnext_jax.sharding import Sharding, abstract, make_mesh
from convnext_jax.storage.files import write_json
from convnext_jax.tasks.classification import Classification
from convnext_jax.workdir.best_metric import best_metric
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import read_experiment, seed_runs
from convnext_jax.workdir.dataset_record import DatasetRecord


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run that has checkpoints, with its model ready to be evaluated on this machine's devices.

    Attributes:
      workdir: where it is.
      experiment: its settings, with where the data are on this machine.
      record: what it knows of its data.
      task: what it is judged by.
      model: the network, without its parameters.
      precision: what the network computes in.
      sharding: how arrays lie on the devices.
    """

    workdir: Path
    experiment: Experiment
    record: DatasetRecord
    task: Classification
    model: AbstractModel
    precision: Precision
    sharding: Sharding

    @classmethod
    def open(cls, workdir: Path, *, data_dir: str | None, dtype: str | None) -> "SavedRun":
        """Opens a workdir of one seed; see :func:`evaluate_workdir` for the arguments and the errors."""
        experiment = read_experiment(workdir, data_dir=data_dir)
        record = DatasetRecord.read(workdir)
        if not (workdir / "checkpoints").is_dir():
            raise UserError(f"{workdir} has no checkpoints yet")
        task = Classification(len(record.class_names))
        precision = precision_of(dtype or experiment.model.dtype)
        model = abstract_model(
            lambda: create_model(
                experiment.model.architecture,
                num_classes=task.num_outputs,
                in_channels=len(record.mean),
                dtype=precision,
            )
        )
        return cls(workdir, experiment, record, task, model, precision, Sharding(make_mesh()))

    def checkpoints(self) -> Checkpoints:
        """Returns the checkpoints, to be read."""
        best = best_metric(self.experiment, self.task)
        return Checkpoints(self.workdir / "checkpoints", best=best, read_only=True)

    def select(self, which: str) -> int:
        """Returns the step that ``latest``, ``best`` or a number means; see `Checkpoints.select`."""
        with self.checkpoints() as checkpoints:
            return checkpoints.select(which)

    def restore(self, step: int, weights: str = "raw") -> tuple[Any, Any]:
        """Returns the parameters and the running statistics of a checkpoint, or with ``ema`` their moving averages."""
        if weights == "ema" and not self.experiment.optim.ema_decay:
            raise UserError(f"--weights ema: the run in {self.workdir} keeps no average (config.optim.ema_decay=0)")
        names = {"raw": ("params", "batch_stats"), "ema": ("ema", "ema_batch_stats")}[weights]
        like = abstract((self.model.params, self.model.batch_stats), self.sharding.state)
        with self.checkpoints() as checkpoints:
            checkpoints.verify(step)
            try:
                restored = checkpoints.restore(step, dict(zip(names, like, strict=True)))
            except Exception as error:  # one without checksums; whatever Orbax and TensorStore raise
                raise UserError(
                    f"{self.workdir}: the checkpoint of step {step} cannot be read ({first_line(error)});"
                    f" choose another: {', '.join(map(str, checkpoints.steps()))}"
                ) from error
        return restored[names[0]], restored[names[1]]

    def check_same_data(self, dataset: Dataset, *, may_have_changed: bool = False) -> None:
        """Raises UserError if the data are not those that the run was trained on.

        Args:
          dataset: the data.
          may_have_changed: whether other examples are all right. Other classes and channels are not in any case.
        """
        there, classes_alone = self.record, dataclasses.replace(self.record, splits={})
        remedy, now = "give the right --data_dir", DatasetRecord.of(dataset)
        if may_have_changed:
            there = classes_alone
        elif not classes_alone.differences(now):
            remedy += ", or evaluate on these with --data_changed ok"
        there.check_same(now, self.workdir, remedy)

    def evaluate(
        self, params: Any, batch_stats: Any, dataset: Dataset, *, split: str, batch_size: int
    ) -> dict[str, Any]:
        """Evaluates parameters and running statistics on a whole split of the run's data set."""
        figures = evaluate_split(
            self.model.definition,
            params,
            batch_stats,
            put_split(self.examples(dataset, split), self.sharding),
            task=self.task,
            normalization=self.record.normalization,
            batch_size=batch_size,
            sharding=self.sharding,
            image_size=self.experiment.run.evaluation_size,
        )
        return figures | {
            "parameters": count_parameters(params),
            "model": self.experiment.model.name,
            "dataset": self.record.name,
            "split": split,
            "dtype": self.precision.compute,
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        }

    def examples(self, dataset: Dataset, split: str) -> Split:
        """Returns a split of the run's data set; raises UserError if there is none of that name."""
        examples = {"train": dataset.train, "test": dataset.test, "validation": dataset.validation}[split]
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
    data_changed: bool = False,
) -> dict[str, Any]:
    """Evaluates a checkpoint, or with several seeds the one of each, on a whole split.

    Args:
      workdir: a workdir of ``train.py``.
      which: ``latest``, ``best`` or a step.
      weights: ``raw``, or ``ema`` for the moving average.
      split: ``test``, ``train``, or ``validation`` if the run held out one.
      data_dir: where the data are on this machine; None is where the config says.
      dtype: what to compute in; None is what the config says.
      batch_size: images at a time.
      data_changed: whether the data may be others than those trained on. The classes may not.

    Returns:
      What ``evaluation.json`` holds: ``top1``, ``top5`` (fractions), ``loss`` (nats), ``examples``, and what they are
      about. With several seeds: ``mean`` and ``std``, the sample standard deviation, of these figures, and under
      ``seeds`` the evaluation of each.

    Raises:
      UserError: no workdir, no such checkpoint, weights or split, or data that are missing or others than those trained
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
    dataset = data.load(runs[0].experiment.data)  # the seeds have the same data
    runs[0].examples(dataset, split)  # a split that is not there is said to be that
    runs[0].check_same_data(dataset, may_have_changed=data_changed)
    evaluations = [
        run.evaluate(*run.restore(step, weights), dataset, split=split, batch_size=batch_size)
        | {"step": step, "weights": weights}
        for run, step in zip(runs, steps, strict=True)
    ]
    if len(runs) == 1:
        return evaluations[0]
    names = tuple(runs[0].task.metrics)
    return over_seeds({name: evaluation[name] for name in names} for evaluation in evaluations) | {
        "split": split,
        "seeds": {str(run.experiment.run.seed): each for run, each in zip(runs, evaluations, strict=True)},
    }


def write_evaluation(evaluation: dict[str, Any], directory: Path) -> Path:
    """Writes ``evaluation.json`` into a folder, created if it does not exist, and returns its path."""
    path = directory / "evaluation.json"
    with writing(path, "--output"):
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, evaluation)
    return path
