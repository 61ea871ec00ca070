"""The plan of a run as plain values, fit for JSON."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax

from convnext_jax.config import Experiment
from convnext_jax.data.registry import Extent
from convnext_jax.errors import UserError
from convnext_jax.memory import memory_limit
from convnext_jax.models.parameters import count_parameters
from convnext_jax.sharding import Sharding
from convnext_jax.tools.benchmark.batch import batch_unit, largest_batch
from convnext_jax.tools.benchmark.programs import model_macs, seen_extent
from convnext_jax.tools.benchmark.timing import flops_per_image, say
from convnext_jax.tools.plan.compile import CompiledRun, compile_run, memory_by_kind
from convnext_jax.tools.plan.hlo import (
    Collective,
    Executed,
    Program,
    collectives,
    memory_traffic,
    program_instructions,
    read_program,
    step_instructions,
)
from convnext_jax.tools.plan.kinds import by_kind, step_costs
from convnext_jax.tools.plan.roofline import bytes_sent, roofline
from convnext_jax.tools.plan.topology import Topology, compiler_mismatch

DEAREST = 10


def plan_of(run: CompiledRun, extent: Extent, topology: Topology, sharding: Sharding) -> dict[str, Any]:
    """Returns what a run would need, read from its compiled step.

    Args:
      run: what was compiled.
      extent: of the data set.
      topology: the chips.
      sharding: the devices that it was compiled for.
    """
    experiment = run.plan.experiment
    seen, batch = seen_extent(experiment, extent), experiment.run.batch_size
    macs = model_macs(run.plan, seen)
    memory = memory_by_kind(run)
    limit = chip_memory(topology, sharding)
    result: dict[str, Any] = {
        "topology": topology.name,
        "chips": topology.count,
        "chip": None if topology.chip is None else dataclasses.asdict(topology.chip),
        "compiled_for": sharding.mesh.devices.flat[0].device_kind,
        "compiler": compiler_release(topology),
        "compile_seconds": run.seconds,
        "refusal": run.refusal,
        "parameters": count_parameters(run.plan.model.params),
        "dtype": experiment.model.dtype,
        "image_size": [seen.height, seen.width],
        "train_examples": run.plan.spec.source.num_examples,
        "num_classes": extent.num_classes,
        "batch_size": batch,
        "epochs": experiment.run.epochs,
        "steps_per_epoch": run.plan.steps_per_epoch,
        "total_steps": run.plan.total_steps,
        "memory_bytes": memory,
        "total_memory_bytes": None if run.program is None else sum(memory.values()),
        "limit_memory_bytes": limit,
        "fits": None if limit is None else run.program is not None and sum(memory.values()) <= limit,
        "macs_per_image": macs,
        "model_flops_per_chip": flops_per_image("step", macs, experiment.optim) * batch / topology.count,
    }
    return result if run.program is None else result | _program_figures(run, topology, result)


def _program_figures(run: CompiledRun, topology: Topology, result: dict[str, Any]) -> dict[str, Any]:
    assert run.program is not None
    counted: Any = run.program.cost_analysis()
    program = read_program(program_text(run.program, topology))
    step = step_instructions(program)
    exchanged = collectives(program, step, topology.count)
    costs, traffic = step_costs(program, step), memory_traffic(program, step)
    chip, sent = topology.chip, bytes_sent(exchanged)
    cycles = sum(cost.cycles for cost in costs) if topology.is_tpu else None
    limits = modeled = None
    if chip is not None:
        limits = roofline(chip, flops=result["model_flops_per_chip"], accessed=traffic, sent=sent)
        # The collectives have no cycles. None is taken to overlap with the rest.
        modeled = cycles / chip.clock + limits["interconnect"] if cycles is not None and chip.clock else None
    seconds = modeled or (max(limits.values()) if limits else None)
    return {
        "xla_flops_per_chip": counted["flops"],
        "xla_bytes_accessed_per_chip": counted["bytes accessed"],
        "memory_traffic_per_chip": traffic,
        "collectives": _summed(exchanged),
        "bytes_sent_per_chip": sent,
        "cycles": cycles,
        "cycles_with_loops_once": sum(cost.cycles // cost.times for cost in costs) if topology.is_tpu else None,
        "cycles_by_kind": by_kind(costs) if topology.is_tpu else None,
        "dearest": [dataclasses.asdict(cost) for cost in costs[:DEAREST]] if topology.is_tpu else None,
        "instructions_without_cycles": _without_cycles(step) if topology.is_tpu else None,
        "roofline_seconds": limits,
        "modeled_step_seconds": modeled,
        "hours": None if seconds is None else seconds * result["total_steps"] / 3600,
        "chip_hours": None if seconds is None else seconds * result["total_steps"] / 3600 * topology.count,
    }


def program_text(program: Any, topology: Topology) -> str:
    """Returns the text of a compiled program; raises UserError if another release of the compiler made it."""
    try:
        return program.as_text() or ""
    except jax.errors.JaxRuntimeError as error:
        mismatch = compiler_mismatch() if topology.is_tpu else None
        if mismatch is None:
            raise
        raise UserError(f"--topology {topology.name}: JAX cannot read the compiled program, and {mismatch}") from error


def executed_by(program: Any, topology: Topology) -> tuple[Program, list[Executed]]:
    """Returns a compiled program that has no steps, and what it executes; raises as `program_text` does."""
    read = read_program(program_text(program, topology))
    return read, program_instructions(read)


def _summed(exchanged: Sequence[Collective]) -> list[dict[str, Any]]:
    """Returns the collectives of a step, those of one kind, dtype and group together."""
    counts: Counter[tuple[str, tuple[str, ...], int]] = Counter()
    sizes: Counter[tuple[str, tuple[str, ...], int]] = Counter()
    for each in exchanged:
        key = (each.opcode, each.dtypes, each.group)
        counts[key] += each.times
        sizes[key] += each.times * each.bytes
    return [
        {"opcode": key[0], "dtypes": list(key[1]), "group": key[2], "count": counts[key], "bytes": sizes[key]}
        for key in counts
    ]


def _without_cycles(step: Sequence[Any]) -> dict[str, int]:
    """Returns how many instructions that do work in a step the compiler's model of time says nothing of, by opcode."""
    opcodes = ("fusion", "gather", "scatter", "sort", "copy", "convolution", "dot")
    unknown = [each.instruction for each in step if each.instruction.cycles is None]
    return dict(Counter(each.opcode for each in unknown if each.opcode in opcodes))


def chip_memory(topology: Topology, sharding: Sharding) -> int | None:
    """Returns the bytes that a program may use on each chip; of a GPU the share that JAX takes by default."""
    if topology.chip is None:
        return memory_limit(sharding)
    return topology.chip.memory_bytes if topology.is_tpu else topology.chip.memory_bytes * 3 // 4


def largest_that_fits(
    experiment: Experiment, extent: Extent, topology: Topology, sharding: Sharding, known: dict[int, int | None]
) -> dict[str, Any]:
    """Returns the largest batch whose memory fits a chip, to a sixteenth, by compiling some batches.

    Args:
      experiment: the settings, with the number format of the chips.
      extent: of the data set.
      topology: the chips.
      sharding: their devices.
      known: bytes of batches that were compiled before; None for one that the compiler refused.

    Raises:
      UserError: it is not known how much memory there is.
    """
    limit = chip_memory(topology, sharding)
    if limit is None:
        raise UserError(f"--largest_batch: the memory of {topology.name} is not known on this machine")

    def needed(batch: int) -> int | None:
        if batch not in known:
            say(f"compiling batch {batch}")
            changed = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, batch_size=batch))
            run = compile_run(changed, extent, sharding, limit)
            known[batch] = None if run.program is None else sum(memory_by_kind(run).values())
        return known[batch]

    unit, batch = batch_unit(experiment, sharding), experiment.run.batch_size
    most = extent.train_examples or batch
    best = largest_batch(needed, limit, first=max(unit, batch - batch % unit), unit=unit, most=most)
    return {
        "batch_size": best.batch_size,
        "bytes_by_batch": {str(batch): used for batch, used in sorted(best.bytes_by_batch.items())},
    }


def compiler_release(topology: Topology) -> str:
    """Returns the package that compiles for a topology, with its version."""
    package = "libtpu" if topology.is_tpu else "jaxlib"
    return f"{package} {metadata.version(package)}"
