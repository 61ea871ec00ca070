"""Measures how fast an experiment would train on this machine, or how large its batches may be.

``python -m convnext_jax.tools.benchmark --config configs/cifar100.py --parts forward,step``
``python -m convnext_jax.tools.benchmark --config configs/cifar100.py --max_batch``

The parts are ``forward``, inference on one batch; ``step``, the training step on one batch without augmentation; and
``pipeline``, the program of ``train.py`` on the real data. Their calls take turns, and the median and the quartiles of
each part are given. FLOPs are those that the model's convolutions and matrix products need, two for a multiply-add and
three times the forward pass for a training step, however XLA computes them and whatever remat computes again. MFU is
their rate over that of the fastest square matrix product measured on the same devices in the same dtype.
"""

import argparse
import os
from typing import TYPE_CHECKING

from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent, known_extent
from convnext_jax.errors import UserError, nearest
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file

if TYPE_CHECKING:
    from convnext_jax.sharding import Sharding

PARTS = ("forward", "step", "pipeline")
BACKENDS = ("cpu", "cuda", "rocm", "tpu")


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Measures how fast an experiment would train on this machine: images a second, share of the machine's ceiling,"
        "\nmemory and compile time; or, with --max_batch, how large its batches may be.",
        "Any field can be set: --config.section.field=value. Only the part pipeline needs the data.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, such as configs/cifar100.py")
    parser.add_argument("--parts", metavar="NAMES", help=f"what is measured (default: {','.join(PARTS)})")
    parser.add_argument("--max_batch", action="store_true", help="find the largest batch that fits; nothing is run")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="side of the images that the model sees")
    parser.add_argument("--num_classes", type=int, metavar="N", help="of a data set whose classes are not known")
    parser.add_argument("--steps", type=int, metavar="N", help="most steps of a call (default: as the training's)")
    parser.add_argument("--repeats", type=int, default=10, metavar="N", help="timed calls of each part (default: 10)")
    parser.add_argument("--backend", choices=BACKENDS, help="what it runs on (default: as JAX chooses)")
    parser.add_argument("--output", type=local_path, metavar="FILE", help="a JSON file to write")
    arguments, overrides = parser.parse_known_args()
    if arguments.image_size is not None:
        overrides.append(f"--config.run.image_sizes=({arguments.image_size},)")
    experiment = command_line.load_experiment(arguments.config, overrides)
    command_line.check_names(experiment)
    parts = _read_parts(arguments)
    _check_numbers(arguments)
    extent = None if "pipeline" in parts else _extent_before_data(experiment, arguments)
    if arguments.max_batch:
        # The memory is planned before LLVM begins, which takes most of the time on a CPU, and no program is run.
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    sharding = _start(arguments.backend, experiment.run.fsdp)

    # These take seconds to import; a mistake above was answered without them.
    from convnext_jax.run.environment import describe_environment
    from convnext_jax.storage.files import write_json
    from convnext_jax.tools.benchmark.batch import batch_table, largest_batches
    from convnext_jax.tools.benchmark.throughput import throughput, throughput_table

    if extent is not None and arguments.max_batch:
        result = largest_batches(experiment, extent, sharding)
        table = batch_table(result)
    else:
        steps = arguments.steps or experiment.run.steps_per_dispatch
        result = throughput(experiment, extent, sharding, parts, steps=steps, repeats=arguments.repeats)
        table = throughput_table(result)
    print(table)
    if arguments.output is not None:
        settings = {"config": arguments.config, "settings": experiment.to_dict()}
        write_json(arguments.output, settings | result | {"environment": describe_environment()})
        print(f"written to {arguments.output}")


def _read_parts(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.max_batch:
        if arguments.parts is not None:
            raise UserError("--parts is for what is run, and --max_batch runs nothing; leave out one of them")
        return ()
    names = PARTS if arguments.parts is None else arguments.parts.split(",")
    for name in names:
        if name not in PARTS:
            raise UserError(f"--parts {arguments.parts}: {name!r} is unknown; {nearest(name, PARTS)}")
    return tuple(part for part in PARTS if part in names)


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name, least in (("num_classes", 1), ("steps", 1), ("repeats", 2)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
    if arguments.output is not None:
        check_new_file("--output", arguments.output)


def _extent_before_data(experiment: Experiment, arguments: argparse.Namespace) -> Extent:
    """Returns what is known of the data set without loading it, and what the flags say of others."""
    name, size, classes = experiment.data.name, arguments.image_size, arguments.num_classes
    known = known_extent(experiment.data)
    if known is None:
        size = size or experiment.data.image_size
        if size is None or classes is None:
            raise UserError(
                f"the images and classes of {name} are not known before its data are there; give --image_size and"
                " --num_classes"
            )
        return Extent(size, size, classes, channels=experiment.data.channels or 3)
    if classes not in (None, known.num_classes):
        raise UserError(f"--num_classes {classes}: {name} has {known.num_classes} classes; leave it out")
    return known


def _start(backend: str | None, fsdp: int) -> "Sharding":
    """Returns the devices as a training of the experiment has them."""
    import jax

    from convnext_jax.run.jax_settings import start_jax
    from convnext_jax.sharding import Sharding, make_mesh

    # The time of a compilation is wanted, not that of finding a program in the cache.
    jax.config.update("jax_enable_compilation_cache", False)
    start_jax(backend)
    return Sharding(make_mesh(fsdp=fsdp))


if __name__ == "__main__":
    command_line.run_main(main)
