"""A run that has checkpoints, opened to be evaluated anywhere. It needs the workdir, no optimizer and no loop."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.config import Experiment
from convnext_jax.data import Dataset, Split
from convnext_jax.errors import UserError, first_line
from convnext_jax.evaluate.predictions import Forward
from convnext_jax.models.costs import count_macs
from convnext_jax.models.parameters import AbstractModel, abstract_model, merge_model
from convnext_jax.models.registry import create_model
from convnext_jax.precision import Precision, precision_of
from convnext_jax.sharding import Sharding, abstract, make_mesh
from convnext_jax.tasks.interface import Task
from convnext_jax.tasks.make import data_for_task, make_task
from convnext_jax.workdir.best_metric import best_metric
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import read_experiment
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
    task: Task
    model: AbstractModel
    precision: Precision
    sharding: Sharding

    @classmethod
    def open(cls, workdir: Path, *, data_dir: str | None, dtype: str | None) -> "SavedRun":
        """Opens a workdir of one seed.

        Args:
          workdir: a workdir of ``train.py``.
          data_dir: where the data are on this machine; None is where the config says.
          dtype: what to compute in; None is what the config says.

        Raises:
          UserError: it is no workdir, or has no checkpoints yet.
        """
        experiment = read_experiment(workdir, data_dir=data_dir)
        record = DatasetRecord.read(workdir)
        if not (workdir / "checkpoints").is_dir():
            raise UserError(f"{workdir} has no checkpoints yet")
        task = make_task(experiment, num_classes=len(record.class_names), mask_classes=len(record.mask_names))
        precision = precision_of(dtype or experiment.model.dtype)
        model = abstract_model(
            lambda: create_model(
                experiment.model.architecture,
                **task.network,
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

    def check_weights(self, weights: str) -> None:
        """Raises UserError if ``weights`` is ``ema`` and the run keeps no moving average."""
        if weights == "ema" and not self.experiment.optim.ema_decay:
            raise UserError(f"--weights ema: the run in {self.workdir} keeps no average (config.optim.ema_decay=0)")

    def restore(self, step: int, weights: str = "raw") -> tuple[Any, Any]:
        """Returns the parameters and the running statistics of a checkpoint, or with ``ema`` their moving averages."""
        self.check_weights(weights)
        names = {"raw": ("params", "batch_stats"), "ema": ("ema", "ema_batch_stats")}[weights]
        like = abstract((self.model.params, self.model.batch_stats), self.sharding.replicated)
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

    def check_same_data(self, dataset: Dataset, *, may_have_changed: bool | None = None) -> None:
        """Raises UserError if the data are not those that the run was trained on.

        Args:
          dataset: the data.
          may_have_changed: whether other examples are all right, None if they never are. Other classes and channels
            are not in any case.
        """
        there, classes_alone = self.record, dataclasses.replace(self.record, splits={})
        remedy, now = "give the right --data_dir", DatasetRecord.of(dataset)
        if may_have_changed:
            there = classes_alone
        elif may_have_changed is False and not classes_alone.differences(now):
            remedy += ", or evaluate on these with --data_changed ok"
        there.check_same(now, self.workdir, remedy)

    def of_task(self, dataset: Dataset) -> Dataset:
        """Returns the data as the run was trained on them: a classifier saw no masks."""
        return data_for_task(self.experiment, dataset)

    def forward(self, tta: str = "none") -> Forward:
        """Returns how pixels become logits, as in training, of the views that ``tta`` names; see `Forward`."""
        return Forward(
            definition=self.model.definition,
            normalization=self.record.normalization,
            image_size=self.experiment.run.evaluation_size,
            sharding=self.sharding,
            tta=tta,
        )

    def macs(self, image_size: tuple[int, int]) -> int:
        """Returns the multiply-adds of a forward pass of one image, at the size that the network is given.

        Args:
          image_size: height and width of the images of the data.
        """
        size = self.experiment.run.evaluation_size
        height, width = image_size if size is None else (size, size)
        image = jax.ShapeDtypeStruct((1, height, width, len(self.record.mean)), jnp.float32)
        model = self.model

        def apply(params: Any, batch_stats: Any, image: jax.Array) -> jax.Array:
            return merge_model(model.definition, params, batch_stats)(image)

        return count_macs(apply, model.params, model.batch_stats, image)

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
