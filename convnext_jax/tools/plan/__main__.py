"""Plans a training on chips that are not here: ``python -m convnext_jax.tools.plan --config FILE --topology v5e:2x4``.

The program that ``train.py`` would run is compiled ahead of time and not run. For a TPU its own compiler, libtpu, does
so on any machine (``pip install 'jax[tpu]'``), and says how many cycles each instruction should take. ``cpu:N`` needs
nothing. For a GPU there is no compiler without one: its memory and traffic are those of the CPU's program.

For data that are not known before they are there, give ``--train_examples``, ``--num_classes`` and ``--image_size``.
"""

import argparse
import dataclasses
import os
from typing import Any

from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.errors import writing
from convnext_jax.storage.cloud import local_path
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.tools.plan.extent import extent_before_data
from convnext_jax.tools.plan.topology import (
    Topology,
    check_compiler,
    compiler_mismatch,
    devices_of,
    read_topology,
    start_on_cpu,
)


def main() -> None:
    """The command."""
    parser = command_line.Parser(
        "Compiles a training for chips that are not here, and says what it would need: memory of a chip by kind,\n"
        "arithmetic, collectives, modeled cycles and time of a step beside the roofline, hours and chip hours.",
        "Any field can be set: --config.section.field=value. For a TPU: pip install 'jax[tpu]'. Nothing is downloaded.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="the experiment, such as configs/cifar100.py")
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIPS",
        help="such as v5e:2x4, v5p:2x2x1, h100:8 or cpu:2; an unknown one lists all",
    )
    parser.add_argument("--largest_batch", action="store_true", help="find the largest batch that fits, by compiling")
    parser.add_argument("--train_examples", type=int, metavar="N", help="of a data set that is not known")
    parser.add_argument("--num_classes", type=int, metavar="N", help="of a data set that is not known")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="short for --config.data.image_size")
    parser.add_argument("--json", type=local_path, metavar="FILE", help="a JSON file to write")
    parser.add_argument("--picture", type=local_path, metavar="FILE", help="bars of the memory and of the cycles")
    arguments, overrides = parser.parse_known_args()
    for option, file in (("--json", arguments.json), ("--picture", arguments.picture)):
        if file is not None:
            check_new_file(option, file)
    topology = read_topology(arguments.topology)
    if arguments.image_size is not None:
        overrides.append(f"--config.data.image_size={arguments.image_size}")
    experiment = command_line.load_experiment(arguments.config, overrides)
    command_line.check_names(experiment)
    extent = extent_before_data(experiment.data, arguments.train_examples, arguments.num_classes)
    check_compiler(topology)
    experiment = with_dtype(experiment, topology)
    if not topology.is_tpu:
        # The memory is planned before LLVM begins, which takes most of the time on a CPU, and no program is run.
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    start_on_cpu(topology)
    print_plan(experiment, extent, topology, arguments)


def print_plan(experiment: Experiment, extent: Extent, topology: Topology, arguments: argparse.Namespace) -> None:
    """Makes the plan, prints it, and writes what the command line asks for."""
    # These take seconds to import; a mistake before was answered without them.
    from convnext_jax.run.environment import describe_environment
    from convnext_jax.sharding import Sharding, make_mesh
    from convnext_jax.storage.files import write_json
    from convnext_jax.tools.benchmark.timing import say
    from convnext_jax.tools.plan.compile import compile_run
    from convnext_jax.tools.plan.planning import chip_memory, largest_that_fits, plan_of
    from convnext_jax.tools.plan.text import plan_text

    mismatch = compiler_mismatch() if topology.is_tpu else None
    if mismatch is not None:
        say(f"note: {mismatch}")
    sharding = Sharding(make_mesh(devices_of(topology), fsdp=experiment.run.fsdp))
    say(f"compiling the training step for {topology.name}; for a TPU that takes minutes")
    compiled = compile_run(experiment, extent, sharding, chip_memory(topology, sharding))
    plan: dict[str, Any] = plan_of(compiled, extent, topology, sharding)
    if arguments.largest_batch:
        known = {experiment.run.batch_size: plan["total_memory_bytes"]}
        plan["largest_batch"] = largest_that_fits(experiment, extent, topology, sharding, known)
    print(plan_text(plan))
    if arguments.json is not None:
        settings = {"config": arguments.config, "settings": experiment.to_dict()}
        with writing(arguments.json, "--json"):
            write_json(arguments.json, settings | plan | {"environment": describe_environment()})
    if arguments.picture is not None:
        from convnext_jax.report.plan_chart import plan_chart

        title = f"{experiment.model.name}, batch {experiment.run.batch_size:,}, on {topology.name}, compiled"
        with writing(arguments.picture, "--picture"):
            plan_chart(plan["memory_bytes"], plan.get("cycles_by_kind"), title).savefig(arguments.picture, dpi=120)


def with_dtype(experiment: Experiment, topology: Topology) -> Experiment:
    """Returns an experiment with the number format that ``auto`` means on the chips of a topology."""
    if experiment.model.dtype != "auto":
        return experiment
    dtype = "float32" if topology.chip is None else "bfloat16"
    return dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, dtype=dtype))


if __name__ == "__main__":
    command_line.run_main(main)
