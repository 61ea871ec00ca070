"""A run made ready, in one call: all checks in their order, then shapes, then arrays."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike

from convnext_jax import data
from convnext_jax.augment.pipeline import augment, check_augment
from convnext_jax.batches.evaluation import EvaluationBatches, abstract_batches, put_batches
from convnext_jax.batches.preprocess import normalize
from convnext_jax.batches.resident import ResidentSource, ResidentSplit, abstract_split, put_split
from convnext_jax.batches.source import BatchSource
from convnext_jax.batches.streaming import StreamingSource, is_streamed
from convnext_jax.config import Experiment
from convnext_jax.data import Dataset, Split
from convnext_jax.data.encoded_images import EncodedImages
from convnext_jax.data.random_crop import RandomCrop
from convnext_jax.errors import UserError
from convnext_jax.memory import memory_size
from convnext_jax.models.interface import Model
from convnext_jax.models.parameters import AbstractModel, abstract_model, count_parameters, flat, nested, split_model
from convnext_jax.models.registry import create_model
from convnext_jax.models.weights import ModelFolder, start_from
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.optim.schedules import make_schedule, reduced, steps_before_decay
from convnext_jax.precision import precision_of
from convnext_jax.run.extend import check_checkpoints, check_start
from convnext_jax.run.output import Output
from convnext_jax.run.peers import ALONE, Peers
from convnext_jax.sharding import Sharding, abstract, put
from convnext_jax.storage.cloud import local_path
from convnext_jax.tasks.interface import Task
from convnext_jax.tasks.make import data_for_task, make_task, task_without_data
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.train.state import TrainState, init_state
from convnext_jax.train.step import MOST_STEPS, StepSpec
from convnext_jax.workdir.best_metric import best_metric
from convnext_jax.workdir.checkpoint_folder import ITEMS
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import has_begun
from convnext_jax.workdir.dataset_record import DatasetRecord
from convnext_jax.workdir.lock import WorkdirLock
from convnext_jax.workdir.rollbacks import Rollback, read_rollbacks
from convnext_jax.workdir.tracking import check_tracker

PIXELS_FOR_STATISTICS = 5000 * 32 * 32


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run as shapes: everything that can be known before anything is computed or allocated.

    Attributes:
      experiment: the settings.
      record: what the run remembers of its data, without the splits.
      model: the network.
      spec: what the step is compiled for.
      state: the shapes and shardings of the training state.
      split: name of the split that is evaluated, ``test`` or ``validation``.
      evaluated: the shapes and shardings of its examples.
      rollbacks: how often it diverged and was taken back.
    """

    experiment: Experiment
    record: DatasetRecord
    model: AbstractModel
    spec: StepSpec
    state: TrainState
    split: str
    evaluated: EvaluationBatches
    rollbacks: Sequence[Rollback] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.spec.source.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.experiment.run.epochs * self.steps_per_epoch

    @property
    def most_steps(self) -> int:
        """The most steps of a call to the device."""
        return most_steps(self.experiment)

    @property
    def steps_before_decay(self) -> int | None:
        """Steps before the learning rate falls, of a run that can be made longer from there; None for others."""
        return steps_before_decay(self.experiment.optim, self.experiment.run.epochs, self.steps_per_epoch)

    def image_size_at(self, step: int) -> int | None:
        """Returns the side in pixels that the images of a step are scaled to; None keeps their own."""
        sizes, epochs = self.experiment.run.image_sizes, self.experiment.run.epochs
        return sizes[step // self.steps_per_epoch * len(sizes) // epochs] if sizes else None

    def image_sizes_from(self, step: int) -> list[int | None]:
        """Returns the sizes that the steps from a step on have, each once, in their order."""
        return list(dict.fromkeys(map(self.image_size_at, range(step, self.total_steps, self.steps_per_epoch))))

    def describe(self, first_step: int, workdir: Path) -> str:
        """Returns in a line what is trained, on what, from which step on, and where the figures go."""
        model, devices = self.experiment.model, self.spec.sharding.mesh.devices
        epochs, total = self.experiment.run.epochs, self.total_steps
        begins = "ended" if first_step >= total else "resuming" if first_step else "starting"
        return (
            f"run: {model.name}, {count_parameters(self.model.params):,} parameters,"
            f" {precision_of(model.dtype).compute}, on {devices.size} x {devices.flat[0].device_kind};"
            f" {begins} at step {first_step} of {total} ({epochs} epochs x {self.steps_per_epoch} steps);"
            f" figures in {workdir}/metrics.jsonl"
        )


@dataclasses.dataclass
class Run:
    """A run with its arrays on the devices, ready to be trained. It is a context that closes what it holds.

    Attributes:
      plan: its shapes.
      output: what it prints and writes.
      peers: all its processes.
      lock: the right to write in its workdir; None in any process but the lead.
      checkpoints: what it saves.
      compiler: compiles its steps, begun already.
      first_step: the step that it goes on from, 0 at its start.
      state: the training state at that step.
      source: where its batches come from.
      evaluated: the examples that it is evaluated on.
      resources: what is closed when the run ends.
    """

    plan: RunPlan
    output: Output
    peers: Peers
    lock: WorkdirLock | None
    checkpoints: Checkpoints
    compiler: StepCompiler
    first_step: int
    state: TrainState
    source: BatchSource
    evaluated: EvaluationBatches
    resources: contextlib.ExitStack

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resources.__exit__(kind, error, trace)


def prepare(
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh,
    *,
    compiler: StepCompiler,
    peers: Peers = ALONE,
    dataset: Dataset | None = None,
    extend: bool = False,
) -> Run:
    """Makes a run ready: claims its workdir, loads its data, begins to compile, and puts its arrays on the devices.

    A run that was begun before goes on from its latest checkpoint.

    Args:
      experiment: the settings.
      workdir: where everything is written.
      mesh: the devices.
      compiler: compiles the steps; several seeds of one experiment share it.
      peers: all processes of the run.
      dataset: the data, if the caller has loaded them and said what they are; None loads those of the experiment.
      extend: whether the run may be one with fewer epochs, which is made longer.

    Raises:
      UserError: everything that is wrong with the settings, the workdir, the data and the devices together, before
        anything is compiled.
    """
    with contextlib.ExitStack() as resources:
        run = _prepare(experiment, workdir, mesh, compiler, peers, dataset, extend, resources)
        run.resources = resources.pop_all()  # nothing went wrong: from here on they are the run's
        return run


def _prepare(
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh,
    compiler: StepCompiler,
    peers: Peers,
    dataset: Dataset | None,
    extend: bool,
    resources: contextlib.ExitStack,
) -> Run:
    output, sharding = Output(workdir), Sharding(mesh)
    peers.check_same(_comparable(experiment))
    # What several processes read is there before any of them goes on to what the lead writes.
    with peers.together():
        check_without_data(experiment)
        before = check_start(workdir, experiment, may_extend=extend)
        begun = has_begun(workdir)
        init_from = experiment.model.init_from
        weights = None if init_from is None else local_path(init_from, "config.model.init_from=")
        rollbacks = read_rollbacks(workdir)
    peers.check_same({f"whether a run has begun in --workdir {workdir}, which all must share": begun})
    with peers.together():
        lock = output.lock(resources)
        if before is None:
            output.claim(experiment)
    told = dataset is not None
    dataset = load_data(experiment, peers) if dataset is None else dataset
    dataset = data_for_task(experiment, dataset)
    with peers.together():
        check_against_data(experiment, dataset, sharding)
    # What fits in one process may not fit in another, and all run the same program.
    streamed = any(peers.gather(is_streamed_here(experiment, dataset, sharding)))
    with peers.together():
        plan = make_plan(experiment, dataset, sharding, rollbacks, streamed=streamed)
        if rollbacks:
            compiler = resources.enter_context(StepCompiler())  # its programs are like nobody else's
        record = DatasetRecord.of(dataset)
        if begun:
            check_same_data(workdir, record)
        digest = None
        if weights is not None and not begun:
            folder = ModelFolder.read(weights)
            start_from(folder, experiment.model.architecture, plan.model.params, plan.model.batch_stats)
            digest = folder.digest if peers.count > 1 else None
    splits = {f"the {name} split": dataclasses.asdict(split) for name, split in record.splits.items()}
    peers.check_same({f"the weights in config.model.init_from={init_from}": digest, **splits})
    if not told:
        output.say(dataset.describe())
    settings = experiment.run
    with peers.together():
        output.record(record)
        output.set_damaged_aside()
        check_checkpoints(workdir)  # all that there were may be damaged
        if before is not None:
            output.extend(before, experiment, plan.steps_per_epoch)
    if before is not None and (fewer := read_rollbacks(workdir)) != rollbacks:
        plan = make_plan(experiment, dataset, sharding, fewer, streamed=streamed)
    checkpoints = resources.enter_context(
        Checkpoints(
            workdir / "checkpoints",
            keep_latest=settings.keep_latest,
            keep_best=settings.keep_best,
            keep_before=plan.steps_before_decay,
            best=best_metric(experiment, plan.spec.task),
        )
    )
    first_step = checkpoints.latest_step() or 0
    peers.check_same({f"the latest checkpoint in --workdir {workdir}, which all must share": first_step})
    sizes = plan.image_sizes_from(first_step)
    output.say(plan.describe(first_step, workdir) + "; compiling" * bool(sizes))
    if sizes:
        compiler.begin(sizes, plan.spec, plan.state)
    # XLA compiles meanwhile.
    source, evaluated = put_data(plan, dataset)
    resources.callback(source.close)
    if isinstance(source, StreamingSource):
        output.say(f"the training split is streamed from {dataset.origin or 'the host'}")
        source.read_ahead(first_step)
    if first_step:
        state = restore_state(checkpoints, first_step, plan)
    else:
        # The lead's, since other processors may round them otherwise.
        statistics = peers.of_lead({k: v.tolist() for k, v in training_statistics(plan, dataset).items()})
        state = initial_state(plan, weights, output, statistics)
    output.begin(first_step)
    return Run(plan, output, peers, lock, checkpoints, compiler, first_step, state, source, evaluated, resources)


def _comparable(experiment: Experiment) -> dict[str, Any]:
    """Returns all settings that the processes must have in common, by ``section.field``."""
    return {
        f"config.{section}.{name}": value
        for section, fields in experiment.to_dict().items()
        for name, value in fields.items()
        if name not in ("data_dir", "manual_dir")
    }


def load_data(experiment: Experiment, peers: Peers) -> Dataset:
    """Loads the data in all processes, in the lead first, so that no two prepare them in the same place."""
    dataset = None
    for turn in (True, False):
        with peers.together():
            if peers.lead is turn:
                dataset = data.load(experiment.data)
    assert dataset is not None
    return dataset


def check_without_data(experiment: Experiment) -> None:
    """Raises UserError for what a configuration alone cannot tell, and what needs no data."""
    task = task_without_data(experiment)
    best_metric(experiment, task)
    check_tracker(experiment.run.tracker)
    if experiment.optim.name == "muon":  # the one optimizer that does not take any model
        make_optimizer(experiment.optim, lambda step: 0.0, _abstract_model(experiment, task, in_channels=3))


def check_against_data(experiment: Experiment, dataset: Dataset, sharding: Sharding) -> None:
    """Raises UserError for whatever can be known to be wrong once the data and the devices are known."""
    count, height, width = dataset.train.images.shape[:3]
    if experiment.data.resident == "always" and isinstance(dataset.train.images, EncodedImages):
        raise UserError(
            f"config.data.resident=always: the training pictures of {dataset.name} stay encoded; take auto or never"
        )
    batch_size = experiment.run.batch_size
    if batch_size > count:
        raise UserError(f"config.run.batch_size={batch_size} is larger than {dataset.name}'s {count} training images")
    sharding.check_batch_size("config.run.batch_size", batch_size)
    if (parts := experiment.optim.accumulation) > 1:
        sharding.check_batch_size("config.run.batch_size / config.optim.accumulation", batch_size // parts)
    check_augment(experiment.augment, height, width)
    if not experiment.run.image_sizes:
        experiment.model.architecture.check_image_size(height, width)


def check_same_data(workdir: Path, now: DatasetRecord) -> None:
    """Raises UserError if the data are not those that the run in a workdir was trained on before."""
    DatasetRecord.read(workdir).check_same(now, workdir, "restore them, or begin a new run in another --workdir")


def is_streamed_here(experiment: Experiment, dataset: Dataset, sharding: Sharding) -> bool:
    """Returns whether the training split is streamed, as far as this process alone can tell."""
    return is_streamed(experiment.data.resident, dataset.train, memory_size(sharding))


def most_steps(experiment: Experiment) -> int:
    """Returns the most steps of a call to the device."""
    return min(experiment.run.steps_per_dispatch, MOST_STEPS)


def make_plan(
    experiment: Experiment,
    dataset: Dataset,
    sharding: Sharding,
    rollbacks: Sequence[Rollback] = (),
    *,
    streamed: bool = False,
) -> RunPlan:
    """Returns a run as shapes. Nothing is computed or allocated.

    Args:
      experiment: the settings.
      dataset: the data.
      sharding: the devices.
      rollbacks: how often the run was taken back.
      streamed: whether the training split is streamed, and not on the devices.
    """
    record = DatasetRecord.of(dataset, with_splits=False)
    optim = experiment.optim
    task = make_task(experiment, num_classes=len(record.class_names), mask_classes=len(record.mask_names))
    model = _abstract_model(experiment, task, in_channels=len(record.mean))
    train = dataset.train if streamed else abstract_split(dataset.train, sharding)
    source = _source(experiment, train, sharding)
    augmentation = experiment.augment
    if _random_crop(experiment, dataset.train) is not None:
        augmentation = dataclasses.replace(augmentation, resized_crop_area=1.0)
    schedule = make_schedule(optim, experiment.run.epochs, source.steps_per_epoch)
    schedule = reduced(schedule, [(rollback.from_step, rollback.factor) for rollback in rollbacks])
    spec = StepSpec(
        definition=model.definition,
        task=task,
        optimizer=make_optimizer(optim, schedule, model),
        schedule=schedule,
        augment=functools.partial(augment, augmentation, task, record.normalization),
        source=source,
        sharding=sharding,
        accumulation=optim.accumulation,
        sam_rho=optim.sam_rho,
        ema_decay=optim.ema_decay,
    )
    state = jax.eval_shape(functools.partial(_initial_state, spec), model.params, model.batch_stats)
    split, evaluated = dataset.evaluated
    return RunPlan(
        experiment=experiment,
        record=record,
        model=model,
        spec=spec,
        state=abstract(state, sharding.state(state)),
        split=split,
        evaluated=abstract_batches(evaluated, experiment.run.eval_batch_size, sharding),
        rollbacks=rollbacks,
    )


def put_data(plan: RunPlan, dataset: Dataset) -> tuple[BatchSource, EvaluationBatches]:
    """Makes the data of a planned run ready: where its batches come from, and what it is evaluated on.

    What is not streamed is put on the devices. The source is to be closed.
    """
    sharding, streamed = plan.spec.sharding, isinstance(plan.spec.source, StreamingSource)
    train = dataset.train if streamed else put_split(dataset.train, sharding)
    evaluated = put_batches(dataset.evaluated[1], plan.experiment.run.eval_batch_size, sharding)
    return _source(plan.experiment, train, sharding), evaluated


def initial_state(
    plan: RunPlan,
    weights: Path | None = None,
    output: Output | None = None,
    statistics: Mapping[str, ArrayLike] | None = None,
) -> TrainState:
    """Returns the state of a planned run before its first step, on the devices.

    Args:
      plan: the run.
      weights: folder of weights to start from; None draws them at random.
      output: says what of the weights was not taken over.
      statistics: `training_statistics` of the data. None leaves these as they are drawn, which is enough where nothing
        is trained. Weights have their own.
    """
    experiment, sharding = plan.experiment, plan.spec.sharding
    channels, task = len(plan.record.mean), plan.spec.task

    def draw() -> tuple[Any, Any]:
        _, params, batch_stats = split_model(_model(experiment, task, in_channels=channels))
        return params, batch_stats

    shardings = sharding.state((plan.model.params, plan.model.batch_stats))
    if weights is None:
        params, batch_stats = jax.jit(draw, out_shardings=shardings)()  # no array is whole anywhere that it need not be
        if statistics:
            places = flat(shardings[1])
            own = {path: put(np.asarray(values, np.float32), places[path]) for path, values in statistics.items()}
            batch_stats = nested(flat(batch_stats) | own)
    else:
        params, batch_stats, notes = start_from(ModelFolder.read(weights), experiment.model.architecture, *draw())
        if output is not None:
            output.say("; ".join([f"starting from the weights in {weights}", *notes]))
        params, batch_stats = put((params, batch_stats), shardings)
    make = jax.jit(functools.partial(_initial_state, plan.spec), out_shardings=sharding.state(plan.state))
    return make(params, batch_stats)


def training_statistics(plan: RunPlan, dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns the running statistics that the network takes of training images, evenly spread over the split.

    See `Model.statistics_of`. Most networks take none, and a run that starts from weights has theirs; then no image is
    read.
    """
    model: Model = plan.model.merged()
    if not model.takes_statistics or plan.experiment.model.init_from is not None:
        return {}
    images = dataset.train.images
    count, height, width, _ = images.shape
    which = np.linspace(0, count - 1, min(count, max(1, PIXELS_FOR_STATISTICS // (height * width)))).astype(np.int64)
    return model.statistics_of(np.asarray(normalize(jnp.asarray(images[which]), plan.record.normalization)))


def _initial_state(spec: StepSpec, params: Any, batch_stats: Any) -> TrainState:
    return init_state(params, spec.optimizer, batch_stats, keep_ema=spec.ema_decay > 0)


def restore_state(checkpoints: Checkpoints, step: int, plan: RunPlan) -> TrainState:
    """Returns the state of a planned run that a checkpoint holds, on the devices."""
    like = {name: getattr(plan.state, name) for name in ITEMS}
    done = put(jnp.int32(step), plan.spec.sharding.replicated)
    return TrainState(done, **checkpoints.restore(step, like))


def _source(experiment: Experiment, split: ResidentSplit | Split, sharding: Sharding) -> BatchSource:
    seed, batch_size = experiment.run.seed, experiment.run.batch_size
    if isinstance(split, ResidentSplit):
        return ResidentSource(split, seed=seed, batch_size=batch_size, sharding=sharding)
    return StreamingSource(
        split,
        seed=seed,
        batch_size=batch_size,
        sharding=sharding,
        most_steps=most_steps(experiment),
        crop=_random_crop(experiment, split),
    )


def _random_crop(experiment: Experiment, train: Split) -> RandomCrop | None:
    """Returns what draws the random resized crops where pictures are decoded; None if it is left to the device.

    Pictures that stay encoded, and are resized when they are decoded, are cropped then: what lies outside of the center
    square is not lost, and no detail of a small rectangle is.
    """
    images, min_area = train.images, experiment.augment.resized_crop_area
    if isinstance(images, EncodedImages) and images.image_size is not None and min_area < 1:
        return RandomCrop(experiment.run.seed, min_area)
    return None


def _abstract_model(experiment: Experiment, task: Task, *, in_channels: int) -> AbstractModel:
    return abstract_model(lambda: _model(experiment, task, in_channels=in_channels))


def _model(experiment: Experiment, task: Task, *, in_channels: int) -> Model:
    model = experiment.model
    return create_model(
        model.architecture,
        **task.network,
        in_channels=in_channels,
        drop_path=model.drop_path,
        dropout=model.dropout,
        remat=model.remat,
        dtype=precision_of(model.dtype),
        initialization=model.initialization,
        seed=experiment.run.seed,
    )
