"""The programs that are measured: inference, the training step on one batch, and the steps of a real training."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.batches.preprocess import normalize
from convnext_jax.batches.source import Batch, labels_of
from convnext_jax.config import AugmentConfig, Experiment
from convnext_jax.data.dataset import Dataset
from convnext_jax.data.registry import Extent
from convnext_jax.models.costs import count_macs
from convnext_jax.models.parameters import merge_model
from convnext_jax.run.prepare import (
    RunPlan,
    check_against_data,
    initial_state,
    is_streamed_here,
    make_plan,
    put_data,
)
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.make import data_for_task
from convnext_jax.tools.benchmark.stand_in_data import noise_as_dataset
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import Metrics, StepSpec, lower_train_steps, train_step


@dataclasses.dataclass
class Part:
    """A compiled program, ready to be called.

    Attributes:
      name: ``forward``, ``step`` or ``pipeline``.
      compiled: the program.
      compile_seconds: what tracing and compiling it took.
      call: takes the steps once and returns when the devices are done.
      state: the training state so far; None for inference.
    """

    name: str
    compiled: jax.stages.Compiled
    compile_seconds: float
    call: Callable[[], None]
    state: TrainState | None = None


def forward_part(experiment: Experiment, extent: Extent, sharding: Sharding, num_steps: int) -> Part:
    """Inference as an evaluation does it, from uint8 images to logits, on one batch again and again."""
    plan, dataset = plan_noise(experiment, extent, sharding)
    state, images = initial_state(plan), constant_batch(dataset, sharding).images
    params, batch_stats = state.params, state.batch_stats

    def forward(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        return merge_model(plan.model.definition, params, batch_stats)(normalize(images, plan.record.normalization))

    compiled, seconds = _timed(lambda: jax.jit(forward).lower(params, batch_stats, images).compile())

    def call() -> None:
        # Calls of their own. XLA would move what is the same each time out of a loop.
        for _ in range(num_steps):
            logits = compiled(params, batch_stats, images)
        jax.block_until_ready(logits)

    return Part("forward", compiled, seconds, call)


def step_part(experiment: Experiment, extent: Extent, sharding: Sharding, num_steps: int) -> Part:
    """The experiment's training step on one batch again and again, without augmentation."""
    plan, dataset = plan_noise(experiment, extent, sharding)
    state, batch = initial_state(plan), constant_batch(dataset, sharding)
    seed = _seed(experiment, sharding)
    return _training(
        "step",
        lambda: compile_constant_steps(plan.spec, state, batch, seed, num_steps),
        state,
        itertools.repeat((batch, seed)),
    )


def compile_constant_steps(
    spec: StepSpec, state: TrainState, batch: Batch, seed: jax.Array, num_steps: int
) -> jax.stages.Compiled:
    """Compiles some training steps on one batch in one call, for ``(state, batch, seed)``; the state is donated."""

    def steps(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, _: train_step(spec, state, batch, seed), state, length=num_steps)

    shardings = (spec.sharding.state(state), spec.sharding.replicated)
    return jax.jit(steps, donate_argnums=0, out_shardings=shardings).lower(state, batch, seed).compile()


def pipeline_part(
    experiment: Experiment, dataset: Dataset, sharding: Sharding, num_steps: int, image_size: int | None
) -> Part:
    """The very program that ``train.py`` compiles, on the real data.

    Args:
      experiment: the settings.
      dataset: the data, on the host.
      sharding: how arrays lie on the devices.
      num_steps: steps of a call, at most those of an epoch. Calls of other lengths are left out, as the last ones of an
        epoch may be.
      image_size: side in pixels that the images are scaled to inside the step; None keeps their own.
    """
    check_against_data(experiment, dataset, sharding)
    most = max(num_steps, experiment.run.steps_per_dispatch)
    experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, steps_per_dispatch=most))
    plan = make_plan(experiment, dataset, sharding, streamed=is_streamed_here(experiment, dataset, sharding))
    spec = dataclasses.replace(plan.spec, image_size=image_size)
    state, (source, _), seed = initial_state(plan), put_data(plan, dataset), _seed(experiment, sharding)
    count = jax.device_put(jnp.int32(num_steps), sharding.replicated)
    # No call crosses the end of an epoch.
    starts = range(0, plan.steps_per_epoch - num_steps + 1, num_steps)
    first_steps = (epoch * plan.steps_per_epoch + start for epoch in itertools.count() for start in starts)
    return _training(
        "pipeline",
        lambda: lower_train_steps(spec, plan.state).compile(),
        state,
        ((source.feed(step, num_steps), count, seed) for step in first_steps),
    )


def plan_noise(
    experiment: Experiment, extent: Extent, sharding: Sharding, *, augmented: bool = False
) -> tuple[RunPlan, Dataset]:
    """Returns an experiment without its data, as shapes, and one batch of noise.

    Args:
      experiment: the settings.
      extent: of the images.
      sharding: the devices.
      augmented: whether images are augmented and scaled, as the experiment says.

    Raises:
      UserError: the batch cannot be split over the devices, or the images are too small for the model.
    """
    dataset = data_for_task(experiment, noise_as_dataset(extent, experiment.run.batch_size))
    if not augmented:
        experiment = dataclasses.replace(
            experiment,
            augment=AugmentConfig(crop_padding=0, flip="none"),
            run=dataclasses.replace(experiment.run, image_sizes=()),
        )
    check_against_data(experiment, dataset, sharding)
    return make_plan(experiment, dataset, sharding), dataset


def seen_extent(experiment: Experiment, extent: Extent) -> Extent:
    """Returns the extent of the images as the model sees them: scaled to the largest of ``config.run.image_sizes``."""
    size = max(experiment.run.image_sizes, default=None)
    return extent if size is None else dataclasses.replace(extent, height=size, width=size)


def constant_batch(dataset: Dataset, sharding: Sharding) -> Batch:
    """Returns a data set of one batch as that batch, split over the devices."""
    indices = np.arange(len(dataset.train), dtype=np.int32)
    batch = (dataset.train.images, labels_of(dataset.train), indices)
    images, labels, indices = jax.device_put(batch, sharding.batch)
    return Batch(images, labels, indices, jax.device_put(jnp.int32(0), sharding.replicated))


def model_macs(plan: RunPlan, extent: Extent) -> int:
    """Returns the multiply-adds of the model for one image, as `count_macs` counts them."""

    def forward(params: Any, batch_stats: Any, images: jax.Array) -> jax.Array:
        return merge_model(plan.model.definition, params, batch_stats)(images)

    image = jax.ShapeDtypeStruct((1, extent.height, extent.width, extent.channels), jnp.float32)
    return count_macs(forward, plan.model.params, plan.model.batch_stats, image)


def _seed(experiment: Experiment, sharding: Sharding) -> jax.Array:
    return jax.device_put(jnp.uint32(experiment.run.seed), sharding.replicated)


def _training(
    name: str, compile_steps: Callable[[], jax.stages.Compiled], state: TrainState, inputs: Iterator[tuple[Any, ...]]
) -> Part:
    """Returns a part whose state goes from one call into the next, since each call takes the buffers that it is given.

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
