"""The programs that are measured: inference, the training step on one batch, and the steps of a real training."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convnext_jax.config import AugmentConfig, Experiment
from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.data.registry import Extent
from convnext_jax.batches.resident import Batch, EpochOrders, normalize
from convnext_jax.sharding import batch_sharded, replicated
from convnext_jax.models import merge_model
from convnext_jax.models.costs import count_macs
from convnext_jax.run.prepare import Run, check_against_data, plan, prepare
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import Program, StepMetrics, lower_train_steps, train_step


@dataclasses.dataclass
class Part:
    """A compiled program, ready to be called.

    Attributes:
      name: ``forward``, ``step`` or ``pipeline``.
      compiled: the program.
      compile_seconds: what tracing and compiling it took.
      call: takes the steps once and returns when the devices are done.
      state: of the steps: the training state so far; None of inference.
    """

    name: str
    compiled: jax.stages.Compiled
    compile_seconds: float
    call: Callable[[], None]
    state: TrainState | None = None


def forward_part(experiment: Experiment, extent: Extent, mesh: Mesh, num_steps: int) -> Part:
    """Inference as an evaluation does it, from uint8 images to logits, on one batch again and again."""
    run, state = prepare_noise(experiment, extent, mesh)
    program, params, statistics = run.program, state.params, state.statistics
    images = constant_batch(run).images

    def forward(params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        inputs = normalize(images, program.mean, program.std)
        return merge_model(program.definition, params, statistics)(inputs)

    compiled, seconds = _timed(lambda: jax.jit(forward).lower(params, statistics, images).compile())

    def call() -> None:
        # Calls of their own: out of a loop XLA would take what is the same each time.
        for _ in range(num_steps):
            logits = compiled(params, statistics, images)
        jax.block_until_ready(logits)

    return Part("forward", compiled, seconds, call)


def step_part(experiment: Experiment, extent: Extent, mesh: Mesh, num_steps: int) -> Part:
    """The experiment's training step on one batch again and again, without augmentation."""
    run, state = prepare_noise(experiment, extent, mesh)
    batch, seed = constant_batch(run), _seed(experiment, mesh)
    return _training(
        "step",
        lambda: compile_constant_steps(run.program, state, batch, seed, num_steps),
        state,
        itertools.repeat((batch, seed)),
    )


def compile_constant_steps(
    program: Program, state: TrainState, batch: Batch, seed: jax.Array, num_steps: int
) -> jax.stages.Compiled:
    """Compiles so many training steps on one batch in one call, for ``(state, batch, seed)``; the state is donated."""

    def steps(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, StepMetrics]:
        return jax.lax.scan(lambda state, _: train_step(program, state, batch, seed), state, length=num_steps)

    jitted = jax.jit(steps, donate_argnums=0, out_shardings=replicated(program.mesh))
    return jitted.lower(state, batch, seed).compile()


def pipeline_part(experiment: Experiment, dataset: Dataset, mesh: Mesh, num_steps: int, image_size: int | None) -> Part:
    """The very program that ``train.py`` compiles, on the real data.

    Args:
      experiment: the settings.
      dataset: the data, on the host.
      mesh: the devices.
      num_steps: steps a call; divides the steps of an epoch.
      image_size: side in pixels that the images are scaled to inside the step; their own if None.
    """
    check_against_data(experiment, dataset, mesh)
    run, state = prepare(experiment, dataset, mesh)
    program = dataclasses.replace(run.program, image_size=image_size)
    seed = _seed(experiment, mesh)
    orders = EpochOrders(experiment.run.seed, run.train.num_examples, replicated(mesh))
    epochs = (first_step // run.steps_per_epoch for first_step in itertools.count(step=num_steps))
    return _training(
        "pipeline",
        lambda: lower_train_steps(program, state, run.train, num_steps).compile(),
        state,
        ((run.train, orders.order(epoch), seed) for epoch in epochs),
    )


def prepare_noise(experiment: Experiment, extent: Extent, mesh: Mesh) -> tuple[Run, TrainState]:
    """An experiment without its data and augmentation, ready for the devices: one batch of noise is all it has.

    Raises:
      UserError: the batch cannot be split over the devices, or the images are too small for the model.
    """
    return prepare(*_with_noise(experiment, extent, mesh), mesh)


def plan_noise(experiment: Experiment, extent: Extent, mesh: Mesh) -> tuple[Run, TrainState]:
    """What `prepare_noise` gives, and raises, with shapes and shardings in place of arrays."""
    return plan(*_with_noise(experiment, extent, mesh), mesh)


def _with_noise(experiment: Experiment, extent: Extent, mesh: Mesh) -> tuple[Experiment, Dataset]:
    rng = np.random.default_rng(0)
    batch_size = experiment.run.batch_size
    images = rng.integers(0, 256, (batch_size, extent.height, extent.width, 3), np.uint8)
    split = Split(images, np.arange(batch_size, dtype=np.int32) % extent.num_classes)
    names = tuple(map(str, range(extent.num_classes)))
    dataset = Dataset("noise", split, split, names, np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
    bare = dataclasses.replace(
        experiment,
        augment=AugmentConfig(crop_padding=0, flip="none"),
        run=dataclasses.replace(experiment.run, image_sizes=()),
    )
    check_against_data(bare, dataset, mesh)
    return bare, dataset


def seen_extent(experiment: Experiment, extent: Extent) -> Extent:
    """The images as the model sees them: scaled to the largest of ``config.run.image_sizes``, where there are any."""
    size = max(experiment.run.image_sizes, default=None)
    return extent if size is None else dataclasses.replace(extent, height=size, width=size)


def constant_batch(run: Run) -> Batch:
    """The first examples of a run's data, split over the devices."""
    mesh = run.program.mesh
    indices = jnp.arange(run.program.batch_size, dtype=jnp.int32)
    images, labels, indices = jax.device_put((*run.train.take(indices), indices), batch_sharded(mesh))
    return Batch(images, labels, indices, jax.device_put(jnp.int32(0), replicated(mesh)))


def model_macs(program: Program, params: Any, statistics: Any, height: int, width: int) -> int:
    """Multiply-adds of the model for one image, as `count_macs` counts them."""

    def forward(params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        return merge_model(program.definition, params, statistics)(images)

    return count_macs(forward, params, statistics, jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32))


def _seed(experiment: Experiment, mesh: Mesh) -> jax.Array:
    return jax.device_put(jnp.uint32(experiment.run.seed), replicated(mesh))


def _training(
    name: str, compile_steps: Callable[[], jax.stages.Compiled], state: TrainState, inputs: Iterator[tuple[Any, ...]]
) -> Part:
    """A part whose state goes from one call into the next, since each call takes the buffers of the one it is given.

    ``inputs`` gives what else each call takes.
    """
    compiled, seconds = _timed(compile_steps)

    def call() -> None:
        part.state, metrics = compiled(part.state, *next(inputs))
        jax.block_until_ready(metrics)

    part = Part(name, compiled, seconds, call, state)
    return part


def _timed(function: Callable[[], jax.stages.Compiled]) -> tuple[jax.stages.Compiled, float]:
    started = time.perf_counter()
    compiled = function()
    return compiled, time.perf_counter() - started
