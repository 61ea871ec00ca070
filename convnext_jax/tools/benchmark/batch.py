"""The largest batch that fits into memory, found by compiling and without running anything."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from convnext_jax.batches.resident import ResidentSource, abstract_split
from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.errors import UserError
from convnext_jax.memory import device_text, memory_limit, program_bytes, size_text
from convnext_jax.precision import precision_of
from convnext_jax.report.tables import plain_table
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.make import data_for_task
from convnext_jax.tools.benchmark.programs import plan_noise, seen_extent
from convnext_jax.tools.benchmark.stand_in_data import shapes_as_dataset
from convnext_jax.tools.benchmark.timing import say
from convnext_jax.train.step import lower_train_steps

# Batches beyond this are not looked for if the number of examples sets no limit.
MOST = 2**20


def largest_batches(experiment: Experiment, extent: Extent, sharding: Sharding) -> dict[str, Any]:
    """Returns the largest batch of a training, without remat and with it, according to XLA's plan of its memory.

    Raises:
      UserError: the memory of the devices is not known, or a batch cannot be split over them.
    """
    limit = memory_limit(sharding)
    if limit is None:
        raise UserError(f"--max_batch: JAX does not tell how much memory {device_text()} has")
    unit, found = batch_unit(experiment, sharding), {}
    first = max(unit, experiment.run.batch_size - experiment.run.batch_size % unit)
    for remat in (False, True):
        needed = training_bytes(
            dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, remat=remat)), extent, sharding
        )
        say(f"compiling with remat={remat}")
        best = largest_batch(needed, limit, first=first, unit=unit, most=extent.train_examples or MOST)
        found[str(remat)] = {
            "batch_size": best.batch_size,
            "bytes_per_device": best.bytes_by_batch.get(best.batch_size),
            "bytes_by_batch": {str(batch): used for batch, used in sorted(best.bytes_by_batch.items())},
        }
    return {
        "benchmark": "max_batch",
        "image_size": list(dataclasses.astuple(seen_extent(experiment, extent))[:2]),
        "num_classes": extent.num_classes,
        "train_examples": extent.train_examples,
        "dtype": precision_of(experiment.model.dtype).compute,
        "limit_bytes_per_device": limit,
        "remat": found,
    }


def batch_table(result: dict[str, Any]) -> str:
    """Returns the figures of :func:`largest_batches` for the terminal."""
    rows = [("remat", "largest batch", "memory a device")]
    for remat, found in result["remat"].items():
        rows.append((remat, f"{found['batch_size']:,}", size_text(found["bytes_per_device"])))
    height, width = result["image_size"]
    return "\n".join(
        [
            f"{height}x{width} pixels, {result['dtype']}, {device_text()}, each with"
            f" {size_text(result['limit_bytes_per_device'])}",
            plain_table(rows, numbers=(1, 2)),
        ]
    )


@dataclasses.dataclass(frozen=True)
class LargestBatch:
    """The largest batch that was found to fit.

    Attributes:
      batch_size: images, over all devices together; 0 if the smallest does not fit.
      bytes_by_batch: what each batch that was tried needs on a device; None if the compiler itself gave up.
    """

    batch_size: int
    bytes_by_batch: dict[int, int | None]


def largest_batch(needed: Callable[[int], int | None], limit: int, *, first: int, unit: int, most: int) -> LargestBatch:
    """Returns the largest batch, to a sixteenth, whose memory is within a limit.

    Memory grows with the batch along almost a straight line. So the line through two batches says where to look next:
    some five compilations instead of a dozen.

    Args:
      needed: bytes that a batch needs, None if the compiler gives up.
      limit: bytes that there are.
      first: the batch to begin with, a multiple of the unit.
      unit: what a batch must be a multiple of.
      most: the largest batch of interest.
    """
    found: dict[int, int | None] = {}
    fits, fails = 0, most - most % unit + unit
    batch = min(first, fails - unit)
    while batch:
        found[batch] = used = needed(batch)
        if used is not None and used <= limit:
            fits = batch
        else:
            fails = batch
        batch = _next_batch(found, limit, fits, fails, unit)
    return LargestBatch(fits, found)


def _next_batch(found: dict[int, int | None], limit: int, fits: int, fails: int, unit: int) -> int:
    """Returns where to look between what fits and what does not; 0 if they are close enough together."""
    grain = unit * max(1, 2 ** int(math.log2(max(fits, unit) / unit)) // 16)
    if fails - fits <= grain:
        return 0
    nearest = sorted((abs(used - limit), batch, used) for batch, used in found.items() if used is not None)[:2]
    guess = 2 * fits if fits else fails // 2
    if len(nearest) == 2:
        (_, batch, used), (_, other, other_used) = nearest
        if slope := (used - other_used) / (batch - other):
            guess = int(batch + (limit - used) / slope)
    if guess >= fails:
        # Beyond what fails, or beyond the batches that are of interest.
        guess = (fits + fails) // 2 if fails in found else fails - unit
    return max(guess - guess % grain, fits + grain)


def batch_unit(experiment: Experiment, sharding: Sharding) -> int:
    """Returns what divides a batch: each accumulated part is split over the devices, in pairs if mixed."""
    unit = sharding.num_devices * experiment.optim.accumulation
    return 2 * unit if experiment.augment.mixes and unit % 2 else unit


def training_bytes(experiment: Experiment, extent: Extent, sharding: Sharding) -> Callable[[int], int | None]:
    """Returns the bytes that an experiment's training needs on each device, as a function of the batch.

    Nothing is run. The program is the one that ``train.py`` runs, with the training split beside it. The split that is
    evaluated, and the evaluation, are not in it.

    Args:
      experiment: the settings, except for the batch.
      extent: the data set's. If the number of its examples is not known, one batch stands for them.
      sharding: the devices.

    Returns:
      A function from a batch to bytes, or None if the compiler already gave up.
    """
    smallest = dataclasses.replace(experiment.run, batch_size=batch_unit(experiment, sharding))
    smallest = dataclasses.replace(experiment, run=smallest)
    plan, _ = plan_noise(smallest, extent, sharding, augmented=True)
    spec = dataclasses.replace(plan.spec, image_size=max(experiment.run.image_sizes, default=None))

    def needed(batch_size: int) -> int | None:
        whole = dataclasses.replace(extent, train_examples=extent.train_examples or batch_size)
        split = abstract_split(data_for_task(experiment, shapes_as_dataset(whole)).train, sharding)
        source = ResidentSource(split, seed=0, batch_size=batch_size, sharding=sharding)
        try:
            used = program_bytes(lower_train_steps(dataclasses.replace(spec, source=source), plan.state).compile())
        except jax.errors.JaxRuntimeError as error:
            # TPU's compiler refuses what does not fit.
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            used = None
        say(f"batch {batch_size}: {'too much' if used is None else size_text(used)}")
        return used

    return needed
