"""The program that ``train.py`` would run, compiled for a topology and never run."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from convnext_jax.batches.streaming import is_streamed
from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.run.prepare import RunPlan, check_against_data, make_plan
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.make import data_for_task
from convnext_jax.tools.benchmark.stand_in_data import shapes_as_dataset
from convnext_jax.train.step import lower_train_steps


@dataclasses.dataclass(frozen=True)
class CompiledRun:
    """A run as shapes and its compiled step.

    Attributes:
      plan: the run.
      program: the compiled step; None if the compiler found that it does not fit.
      refusal: what the compiler said then.
      seconds: that tracing and compilation took.
    """

    plan: RunPlan
    program: jax.stages.Compiled | None
    refusal: str
    seconds: float


def compile_run(experiment: Experiment, extent: Extent, sharding: Sharding, limit: int | None = None) -> CompiledRun:
    """Compiles the training step of an experiment.

    Args:
      experiment: the settings. ``model.dtype`` is not ``auto``, which would mean that of this machine.
      extent: of the data set, whose number of training examples is known.
      sharding: the devices.
      limit: bytes that a program may use on each of them; None if that is not known.

    Raises:
      UserError: the batch cannot be split over the devices, or the images do not suit the settings.
    """
    dataset = data_for_task(experiment, shapes_as_dataset(extent, experiment.data.validation_fraction))
    check_against_data(experiment, dataset, sharding)
    started = time.perf_counter()
    plan = make_plan(
        experiment, dataset, sharding, streamed=is_streamed(experiment.data.resident, dataset.train, limit)
    )
    spec = dataclasses.replace(plan.spec, image_size=max(experiment.run.image_sizes, default=None))
    program, refusal = None, ""
    try:
        program = lower_train_steps(spec, plan.state).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = next(line for line in str(error).splitlines() if line.strip())[:300]
    return CompiledRun(plan, program, refusal, time.perf_counter() - started)


def memory_by_kind(run: CompiledRun) -> dict[str, int]:
    """Returns the bytes of a program on each chip, by what they are for. They add up to what XLA plans.

    ``padding`` is what the chip's layout adds to the arguments, ``program`` the code itself. If the compiler gave up,
    only the arguments are known.
    """
    state = run.plan.state
    kinds: dict[str, Any] = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "moving average": (state.ema, state.ema_batch_stats),
        "batch statistics": state.batch_stats,
        "training data": run.plan.spec.source.abstract_feed(),
    }
    memory = {kind: sum(map(_bytes_on_a_chip, jax.tree.leaves(tree))) for kind, tree in kinds.items()}
    if run.program is None:
        return memory
    stats: Any = run.program.memory_analysis()
    numbers = 3 * 4  # the step, the number of steps and the seed
    return memory | {
        "padding": stats.argument_size_in_bytes - sum(memory.values()) - numbers,
        "results": stats.output_size_in_bytes - stats.alias_size_in_bytes + numbers,
        "temporaries": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }


def _bytes_on_a_chip(leaf: Any) -> int:
    return int(np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=np.int64)) * leaf.dtype.itemsize
