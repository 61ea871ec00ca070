"""A step of a run taken once more, to be looked at: its pictures, its labels, and where its numbers are too large."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from convnext_jax import data
from convnext_jax.batches.order import call_length
from convnext_jax.data.dataset import IGNORED, Dataset
from convnext_jax.errors import UserError
from convnext_jax.keys import Stream, stream_key
from convnext_jax.models.parameters import flat, merge_model
from convnext_jax.run.prepare import (
    RunPlan,
    check_same_data,
    initial_state,
    is_streamed_here,
    make_plan,
    put_data,
    restore_state,
    training_statistics,
)
from convnext_jax.sharding import Sharding, put
from convnext_jax.tasks.classification import MixedLabels
from convnext_jax.tasks.interface import training_loss
from convnext_jax.tasks.make import data_for_task
from convnext_jax.tasks.multitask import ImageAndPixelTargets
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.train.gradients import gradient_norm
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import StepSpec, prepare_inputs, step_gradient
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import read_one_seed
from convnext_jax.workdir.dataset_record import DatasetRecord
from convnext_jax.workdir.rollbacks import read_rollbacks


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a step was given, and what it made of it.

    Attributes:
      step: the step, counted from 1.
      from_step: that of the checkpoint from which the steps before it were taken again.
      images: what the network was given, float32 [B,H,W,C], on the scale [0, 255].
      examples: for each image its index in the training split, its label as text, and its loss.
      statistics: ``loss``, ``grad_norm`` and ``lr``; by name of a parameter its largest absolute value and that of its
        gradient, and its norm and that of its gradient; for each stage the largest absolute value after it.
    """

    step: int
    from_step: int
    images: np.ndarray
    examples: list[dict[str, Any]]
    statistics: dict[str, Any]


def replay(
    workdir: Path, step: int, mesh: Mesh, *, data_dir: str | None = None, say: Callable[[str], None] = print
) -> Replay:
    """Takes the steps of a run from its latest earlier checkpoint to a step again, and looks into that one.

    Nothing in the workdir is changed. Rollbacks from the step on are left out, so that a step that diverged diverges
    again.

    Args:
      workdir: the workdir of ``train.py``, of one seed.
      step: counted from 1, as the log and the message of a divergence count.
      mesh: the devices.
      data_dir: where the data are on this machine; None is where the config says.
      say: is told how far it is.

    Raises:
      UserError: no workdir, or one of several seeds, no such step, data that are others now.
    """
    experiment = read_one_seed(workdir, data_dir=data_dir)
    dataset = data_for_task(experiment, data.load(experiment.data))
    check_same_data(workdir, DatasetRecord.of(dataset))
    rollbacks = read_rollbacks(workdir)
    before = list(itertools.takewhile(lambda rollback: rollback.diverged_at != step, rollbacks))
    # After that the run took the same steps with another learning rate.
    last = step - 1 if len(before) == len(rollbacks) else rollbacks[len(before)].from_step
    sharding = Sharding(mesh)
    streamed = is_streamed_here(experiment, dataset, sharding)
    plan = make_plan(experiment, dataset, sharding, before, streamed=streamed)
    if not 1 <= step <= plan.total_steps:
        raise UserError(f"--step {step}: the run in {workdir} has the steps 1 to {plan.total_steps}")
    from_step, state = _state_at_most(plan, workdir, last, dataset)
    source, _ = put_data(plan, dataset)
    seed = put(np.uint32(experiment.run.seed), plan.spec.sharding.replicated)
    say(f"taking the steps {from_step + 1} to {step} again")
    with contextlib.closing(source):
        with StepCompiler() as compiler:
            while int(state.step) < step - 1:
                state = _advance(plan, compiler, state, source, seed, step - 1)
        spec = dataclasses.replace(plan.spec, image_size=plan.image_size_at(step - 1))
        feed = source.feed(step - 1, 1)
    looked = jax.jit(lambda state, feed: _look(spec, state, feed, seed))(state, feed)
    images, indices, targets, losses, statistics = jax.device_get(looked)
    mean, std = (np.asarray(values, np.float32) for values in (plan.record.mean, plan.record.std))
    record = plan.record
    examples = [
        {"index": int(index), "label": _label(record, targets, number), "loss": float(losses[number])}
        for number, index in enumerate(indices)
    ]
    statistics = {"lr": float(np.asarray(plan.spec.schedule(step - 1))), **jax.tree.map(float, statistics)}
    return Replay(step, from_step, 255 * (images * std + mean), examples, statistics)


def _state_at_most(plan: RunPlan, workdir: Path, last: int, dataset: Dataset) -> tuple[int, TrainState]:
    """Returns the latest state that was kept of a step or one before it, and its step."""
    weights = plan.experiment.model.init_from
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        earlier = [each for each in checkpoints.steps() if each <= last]
        if not earlier:
            folder = None if weights is None else Path(weights)
            return 0, initial_state(plan, folder, statistics=training_statistics(plan, dataset))
        checkpoints.verify(earlier[-1])
        return earlier[-1], restore_state(checkpoints, earlier[-1], plan)


def _advance(
    plan: RunPlan, compiler: StepCompiler, state: TrainState, source: Any, seed: jax.Array, until: int
) -> TrainState:
    """Takes the steps of one call to the device, with the program that the run had."""
    done = int(state.step)
    size = plan.image_size_at(done)
    compiler.begin([size], plan.spec, plan.state)
    count = min(call_length(done, plan.steps_per_epoch, plan.most_steps), until - done)
    number = put(np.int32(count), plan.spec.sharding.replicated)
    return compiler.wait_for(size)(state, source.feed(done, count), number, seed)[0]


def _look(spec: StepSpec, state: TrainState, feed: Any, seed: jax.Array) -> tuple[Any, ...]:
    batch = spec.source.batch(feed, jnp.int32(0))
    inputs, targets = prepare_inputs(spec, state.step, batch, seed)
    key = stream_key(seed, Stream.MODEL, state.step)
    model = merge_model(spec.definition, state.params, state.batch_stats)
    outputs, auxiliary = model.training_outputs(inputs, key=key)
    losses = training_loss(spec.task, outputs, auxiliary, targets)
    model = merge_model(spec.definition, state.params, state.batch_stats)
    stages = model.features(inputs, key=key)
    grads, result = step_gradient(spec, state, inputs, targets, key)
    params, gradients = flat(state.params), flat(grads)
    statistics = {
        "loss": result.metrics["loss"],
        "grad_norm": gradient_norm(grads),
        "stages": {
            f"stage {number}": jnp.abs(stage).max().astype(jnp.float32) for number, stage in enumerate(stages, 1)
        },
        "parameters": {
            name: {
                "largest": jnp.abs(param).max(),
                "norm": jnp.linalg.norm(param.ravel()),
                "gradient_largest": jnp.abs(gradients[name]).max(),
                "gradient_norm": jnp.linalg.norm(gradients[name].ravel()),
            }
            for name, param in params.items()
        },
    }
    return inputs, batch.indices, targets, losses, statistics


def _label(record: DatasetRecord, targets: Any, number: int) -> str:
    """Returns the classes of an image, with their shares if it was mixed; of a mask those that it has."""
    if isinstance(targets, ImageAndPixelTargets):
        targets = targets.image
    names = record.class_names
    if not isinstance(targets, MixedLabels):
        return ", ".join(record.mask_names[value] for value in np.unique(targets[number]) if value != IGNORED)
    one, other = names[targets.labels_a[number]], names[targets.labels_b[number]]
    share = float(targets.weight_a[number])
    return one if share == 1 or one == other else f"{share:.0%} {one}, {1 - share:.0%} {other}"
