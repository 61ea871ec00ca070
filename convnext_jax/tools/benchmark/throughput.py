"""The throughput of an experiment's parts, as plain values fit for JSON and as a table for the terminal."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax

from convnext_jax import data
from convnext_jax.batches.order import call_length
from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.errors import UserError
from convnext_jax.memory import device_text, peak_bytes, program_bytes, size_text
from convnext_jax.models.parameters import count_parameters
from convnext_jax.precision import precision_of
from convnext_jax.report.tables import plain_table
from convnext_jax.run.prepare import check_against_data
from convnext_jax.sharding import Sharding
from convnext_jax.tasks.make import data_for_task
from convnext_jax.tools.benchmark.programs import (
    Part,
    forward_part,
    model_macs,
    pipeline_part,
    plan_noise,
    seen_extent,
    step_part,
)
from convnext_jax.tools.benchmark.timing import Spread, flops_per_image, matmul_ceiling, matmul_sizes, say, time_calls
from convnext_jax.train.step import MOST_STEPS


def throughput(
    experiment: Experiment,
    extent: Extent | None,
    sharding: Sharding,
    names: Sequence[str],
    *,
    steps: int,
    repeats: int,
) -> dict[str, Any]:
    """Compiles and times the parts.

    Args:
      experiment: the settings.
      extent: the data set's, if none is to be loaded; None loads the data.
      sharding: the devices.
      names: of the parts.
      steps: most steps of a call; fewer if an epoch is split more evenly so, and `MOST_STEPS` at most.
      repeats: timed calls of each part.

    Raises:
      UserError: the data are not there, or they and the devices do not suit the settings.
    """
    dataset = _load(experiment) if extent is None else None
    if dataset is not None:
        check_against_data(experiment, dataset, sharding)
        examples, height, width, channels = dataset.train.images.shape
        classes, mask_classes = len(dataset.class_names), len(dataset.mask_names)
        extent = Extent(height, width, classes, examples, channels, mask_classes)
    assert extent is not None
    batch_size, dtype = experiment.run.batch_size, precision_of(experiment.model.dtype).compute
    steps = min(steps, MOST_STEPS)
    if extent.train_examples and extent.train_examples >= batch_size:
        steps = call_length(0, extent.train_examples // batch_size, steps)
    seen = seen_extent(experiment, extent)
    plan, _ = plan_noise(experiment, seen, sharding)
    macs = model_macs(plan, seen)

    say("measuring matrix products")
    products = matmul_ceiling(dtype, sharding, matmul_sizes(jax.default_backend()))
    ceiling = max(products.values())
    parts: dict[str, Part] = {}
    for name in names:
        say(f"compiling {name}")
        if name == "pipeline":
            assert dataset is not None
            size = max(experiment.run.image_sizes, default=None)
            parts[name] = pipeline_part(experiment, dataset, sharding, steps, size)
        else:
            parts[name] = {"forward": forward_part, "step": step_part}[name](experiment, seen, sharding, steps)
    seconds = time_calls({name: part.call for name, part in parts.items()}, repeats, _progress(repeats))
    return {
        "benchmark": "throughput",
        "image_size": [seen.height, seen.width],
        "num_classes": seen.num_classes,
        "batch_size": batch_size,
        "dtype": dtype,
        "steps_per_call": steps,
        "parameters": count_parameters(plan.model.params),
        "macs_per_image": macs,
        "ceiling_gflops": ceiling / 1e9,
        "product_gflops_by_size": {str(size): rate / 1e9 for size, rate in products.items()},
        "parts": {
            name: _figures(
                part, seconds[name], steps, batch_size, flops_per_image(name, macs, experiment.optim), ceiling
            )
            for name, part in parts.items()
        },
        "pipeline_over_step": _ratio(seconds),
        "peak_bytes_in_use": peak_bytes(),
    }


def _load(experiment: Experiment) -> data.Dataset:
    try:
        return data_for_task(experiment, data.load(experiment.data))
    except UserError as error:
        raise UserError(f"{error}; --parts forward,step needs none") from error


def _figures(
    part: Part, seconds: Sequence[float], steps: int, batch_size: int, flops: int, ceiling: float
) -> dict[str, Any]:
    rate = Spread.of([steps * batch_size / one for one in seconds])
    return {
        "images_per_second": dataclasses.asdict(rate),
        "milliseconds_per_step": dataclasses.asdict(Spread.of([1e3 * one / steps for one in seconds])),
        "gflops": rate.median * flops / 1e9,
        "mfu": rate.median * flops / ceiling,
        "flops_per_image": flops,
        "bytes_per_device": program_bytes(part.compiled),
        "compile_seconds": part.compile_seconds,
        "seconds": list(seconds),
    }


def _ratio(seconds: dict[str, list[float]]) -> dict[str, Any] | None:
    """Returns the throughput of the pipeline over that of the step, for calls that followed each other."""
    if not {"step", "pipeline"} <= seconds.keys():
        return None
    ratios = [step / pipeline for step, pipeline in zip(seconds["step"], seconds["pipeline"], strict=True)]
    return {"median": statistics.median(ratios), "ratios": ratios}


def throughput_table(result: dict[str, Any]) -> str:
    """Returns the figures of :func:`throughput` for the terminal."""
    rows = [("part", "images/s", "quartiles", "ms a step", "GFLOP/s", "MFU", "memory", "compiled in")]
    for name, part in result["parts"].items():
        rate = part["images_per_second"]
        rows.append(
            (
                name,
                _number(rate["median"]),
                f"{_number(rate['lower'])} - {_number(rate['upper'])}",
                _number(part["milliseconds_per_step"]["median"]),
                _number(part["gflops"]),
                f"{part['mfu']:.1%}",
                size_text(part["bytes_per_device"]),
                f"{part['compile_seconds']:.0f} s",
            )
        )
    height, width = result["image_size"]
    lines = [
        f"{result['parameters']:,} parameters, {result['macs_per_image'] / 1e6:,.1f} M multiply-adds an image;"
        f" {height}x{width} pixels, batch {result['batch_size']}, {result['dtype']}, {device_text()},"
        f" calls of {result['steps_per_call']} {'step' if result['steps_per_call'] == 1 else 'steps'}",
        plain_table(rows, numbers=range(1, 8)),
        f"ceiling: {_number(result['ceiling_gflops'])} GFLOP/s, the fastest of matrix products of"
        f" {', '.join(result['product_gflops_by_size'])}",
    ]
    if result["pipeline_over_step"]:
        lines.append(f"pipeline over step: {result['pipeline_over_step']['median']:.3f}, median of the pairs")
    if result["peak_bytes_in_use"]:
        lines.append(f"most memory in use on a device: {size_text(result['peak_bytes_in_use'])}")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Returns a number with three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _progress(repeats: int) -> Callable[[int, float], None]:
    def tell(number: int, seconds: float) -> None:
        if number < repeats:
            say(f"round {number} of {repeats} took {seconds:.1f} s; about {(repeats - number) * seconds:.0f} s left")

    return tell
