"""Compiles the training step of the plain JAX network for TPUs that are not here: the modeled cycles by kind, as JSON.

``python -m benchmarks.plain_jax_plan --topology v5e:2x4 --output benchmarks/results/NAME.json``

It stands beside `convnext_jax.tools.plan` for configs/cifar100.py: ConvNeXt-T with a 3x3 stem, 32 pixels, bfloat16,
the same batch over the same chips, and parameters whole on each. There is no augmentation, no drop path and no moving
average: the images and labels are arguments, and the optimizer is optax's AdamW. Nothing is run.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from convnext_jax.errors import UserError, check
from convnext_jax.tools import command_line
from convnext_jax.tools.arguments import check_new_file
from convnext_jax.tools.plan.topology import Topology, check_compiler, devices_of, read_topology, start_on_cpu


def modeled_step(topology: Topology, batch_size: int) -> dict[str, Any]:
    """Returns the figures of the compiled step on each chip.

    Args:
      topology: of TPUs.
      batch_size: images of all chips together.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.comparison.plain_jax_worker import make_optimizer, make_train_step
    from convnext_jax.models.convnext import STEMS, ConvNeXtArchitecture
    from convnext_jax.models.parameters import abstract_model, flat
    from convnext_jax.models.registry import create_model, named_architecture
    from convnext_jax.sharding import Sharding, abstract, make_mesh
    from convnext_jax.tools.plan.hlo import memory_traffic
    from convnext_jax.tools.plan.kinds import by_kind, step_costs
    from convnext_jax.tools.plan.planning import compiler_release, executed_by

    sharding = Sharding(make_mesh(devices_of(topology)))
    sharding.check_batch_size("--batch_size", batch_size)
    model = abstract_model(lambda: create_model("convnext_tiny", num_classes=100, stem="conv3x3_s1"))
    params = flat(model.params)
    optimizer = make_optimizer()
    state = abstract((params, jax.eval_shape(optimizer.init, params)), sharding.replicated)
    images = jax.ShapeDtypeStruct((batch_size, 32, 32, 3), jnp.float32)
    batch = abstract((images, jax.ShapeDtypeStruct((batch_size,), jnp.int32)), sharding.batch)
    architecture = named_architecture("convnext_tiny", {"stem": "conv3x3_s1"})
    assert isinstance(architecture, ConvNeXtArchitecture)
    (stem,) = STEMS[architecture.stem]
    step = make_train_step(optimizer, jnp.bfloat16, architecture.depths, dataclasses.astuple(stem))
    started = time.perf_counter()
    with jax.set_mesh(sharding.mesh):
        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*state, *batch).compile()
    seconds = time.perf_counter() - started
    program, executed = executed_by(compiled, topology)
    costs = step_costs(program, executed)
    memory: Any = compiled.memory_analysis()
    return {
        "topology": topology.name,
        "chips": topology.count,
        "compiler": compiler_release(topology),
        "compile_seconds": seconds,
        "batch_size": batch_size,
        "cycles": sum(cost.cycles for cost in costs),
        "cycles_by_kind": by_kind(costs),
        "temporary_memory_bytes": memory.temp_size_in_bytes,
        "memory_traffic_per_chip": memory_traffic(program, executed),
    }


def main() -> None:
    """The command."""
    parser = command_line.Parser(__doc__ or "", "Needs TPU's compiler: pip install 'jax[tpu]'")
    parser.add_argument("--topology", required=True, metavar="CHIPS", help="TPUs, such as v5e:2x4")
    parser.add_argument("--batch_size", type=int, default=1024, metavar="N", help="images of all chips together")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where the record is written")
    arguments = parser.parse_args()
    check("--batch_size", arguments.batch_size, arguments.batch_size >= 1, "1 or more")
    check_new_file("--output", arguments.output)
    topology = read_topology(arguments.topology)
    if not topology.is_tpu:
        raise UserError(
            f"--topology {topology.name}: only TPU's compiler has a model of time; take one such as v5e:2x4"
        )
    check_compiler(topology)
    start_on_cpu(topology)

    from convnext_jax.run.environment import describe_environment
    from convnext_jax.storage.files import write_json

    figures = modeled_step(topology, arguments.batch_size)
    print(f"{figures['cycles'] / 1e6:.2f} million modeled cycles a step, {figures['compile_seconds']:.0f} s to compile")
    for kind, cycles in figures["cycles_by_kind"].items():
        print(f"  {kind:14}{cycles / 1e6:8.2f}")
    write_json(arguments.output, figures | {"environment": describe_environment()})


if __name__ == "__main__":
    command_line.run_main(main)
