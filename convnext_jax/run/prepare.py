"""An experiment and its data made ready for the devices; whatever is wrong with them together is found here."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from convnext_jax.augment.pipeline import check_augment
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset
from convnext_jax.data.dataset import Split
from convnext_jax.batches.resident import ResidentSplit, put_split
from convnext_jax.sharding import abstract, check_batch_size, compute_dtype, replicated
from convnext_jax.errors import UserError
from convnext_jax.models import abstract_model, split_model
from convnext_jax.models.architectures import configured_architecture
from convnext_jax.models.from_config import model_from_config
from convnext_jax.models.weights import Pretrained, start_from
from convnext_jax.optim.groups import muon_labels
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.optim.schedules import make_schedule
from convnext_jax.train.state import TrainState, init_state
from convnext_jax.train.step import Program
from convnext_jax.workdir.records import DatasetRecord


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment and a data set made ready for the devices.

    Attributes:
      experiment: the settings.
      program: what the step is compiled for.
      train: the training split.
      split: name of the split that is evaluated, ``test`` or ``validation``.
      evaluated: its examples.
      steps_per_epoch: steps of an epoch.
      steps_per_call: steps of one call to the device, a divisor of the steps of an epoch.
    """

    experiment: Experiment
    program: Program
    train: ResidentSplit
    split: str
    evaluated: ResidentSplit
    steps_per_epoch: int
    steps_per_call: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.experiment.run.epochs * self.steps_per_epoch

    def image_size_at(self, step: int) -> int | None:
        """Side in pixels that the images of a step are scaled to; None keeps their own."""
        sizes, epochs = self.experiment.run.image_sizes, self.experiment.run.epochs
        return sizes[step // self.steps_per_epoch * len(sizes) // epochs] if sizes else None

    def image_sizes_from(self, step: int) -> list[int | None]:
        """The sizes that the steps from a step on have, each once, in their order."""
        return list(dict.fromkeys(map(self.image_size_at, range(step, self.total_steps, self.steps_per_epoch))))


def check_against_data(experiment: Experiment, dataset: Dataset, mesh: Mesh) -> None:
    """Raises UserError for whatever can be known to be wrong once the data and the devices are known."""
    count, height, width = dataset.train.images.shape[:3]
    batch_size = experiment.run.batch_size
    if batch_size > count:
        raise UserError(f"config.run.batch_size={batch_size} is larger than {dataset.name}'s {count} training images")
    check_batch_size("config.run.batch_size", batch_size, mesh)
    if (parts := experiment.optim.accumulation) > 1:
        check_batch_size("config.run.batch_size / config.optim.accumulation", batch_size // parts, mesh)
    check_augment(experiment.augment, height, width)
    if not experiment.run.image_sizes:
        configured_architecture(experiment.model).check_image_size(height, width)


def check_optimizer(experiment: Experiment) -> None:
    """Raises UserError where the model has nothing for Muon, the one optimiser that does not take any model."""
    if experiment.optim.name == "muon":
        _, shapes, _ = abstract_model(lambda: model_from_config(experiment.model, num_classes=1, dtype="float32"))
        muon_labels(shapes)


def check_pretrained(experiment: Experiment, dataset: Dataset) -> None:
    """Raises UserError where the weights to start from are not there or do not fit the model."""
    if experiment.model.init_from is not None:
        _, shapes, _ = abstract_model(lambda: _model(experiment, dataset))
        start_from(Pretrained.read(Path(experiment.model.init_from)), shapes)


def plan(experiment: Experiment, dataset: Dataset, mesh: Mesh) -> tuple[Run, TrainState]:
    """What :func:`prepare` gives, with shapes and shardings in place of arrays; nothing is computed or allocated."""
    steps_per_epoch = len(dataset.train.labels) // experiment.run.batch_size
    schedule = make_schedule(experiment.optim, experiment.run.epochs, steps_per_epoch)
    optimizer = make_optimizer(experiment.optim, schedule)
    definition, params, statistics = abstract_model(lambda: _model(experiment, dataset))
    record = DatasetRecord.of(dataset)
    program = Program(
        definition=definition,
        optimizer=optimizer,
        schedule=schedule,
        augment=experiment.augment,
        optim=experiment.optim,
        batch_size=experiment.run.batch_size,
        mean=record.mean,
        std=record.std,
        mesh=mesh,
    )
    split, evaluated = dataset.evaluated
    run = Run(
        experiment=experiment,
        program=program,
        train=_split_shapes(dataset.train, mesh),
        split=split,
        evaluated=_split_shapes(evaluated, mesh),
        steps_per_epoch=steps_per_epoch,
        steps_per_call=largest_divisor(steps_per_epoch, experiment.run.steps_per_dispatch),
    )
    state = jax.eval_shape(functools.partial(_initial_state, run), params, statistics)
    return run, abstract(state, replicated(mesh))


def put_on_devices(planned: Run, dataset: Dataset) -> tuple[Run, TrainState]:
    """A planned run with its data and its initial state on the devices."""
    everywhere = replicated(planned.program.mesh)
    _, params, statistics = split_model(_model(planned.experiment, dataset))
    state = jax.device_put(_initial_state(planned, params, statistics), everywhere)
    _, evaluated = dataset.evaluated
    splits = put_split(dataset.train, everywhere), put_split(evaluated, everywhere)
    return dataclasses.replace(planned, train=splits[0], evaluated=splits[1]), state


def prepare(experiment: Experiment, dataset: Dataset, mesh: Mesh) -> tuple[Run, TrainState]:
    """Puts an experiment's data and initial state on the devices; the experiment has been checked."""
    planned, _ = plan(experiment, dataset, mesh)
    return put_on_devices(planned, dataset)


def _initial_state(run: Run, params: Any, statistics: Any) -> TrainState:
    return init_state(params, run.program.optimizer, statistics, keep_ema=run.experiment.optim.ema_decay > 0)


def _split_shapes(split: Split, mesh: Mesh) -> ResidentSplit:
    return ResidentSplit(*abstract((split.images, split.labels), replicated(mesh)))


def _model(experiment: Experiment, dataset: Dataset) -> nnx.Module:
    return model_from_config(
        experiment.model,
        num_classes=len(dataset.class_names),
        dtype=compute_dtype(experiment.model.dtype),
        seed=experiment.run.seed,
    )


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a positive number that is at most ``limit``.

    >>> largest_divisor(390, 50)
    39
    """
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)
