"""The plan of a run for the terminal."""

from typing import Any

from convnext_jax.memory import size_text
from convnext_jax.report.tables import plain_table


def plan_text(plan: dict[str, Any]) -> str:
    """Returns what `convnext_jax.tools.plan.planning.plan_of` found, with what each figure assumes."""
    parts = [_head(plan), _memory(plan)]
    if plan["total_memory_bytes"] is not None:
        parts += [_arithmetic(plan), _collectives(plan), _cycles(plan), _time(plan)]
    if (found := plan.get("largest_batch")) is not None:
        parts.append(
            f"largest batch that fits, to a sixteenth: {found['batch_size']:,},"
            f" {found['batch_size'] // plan['chips']:,} a chip, from {len(found['bytes_by_batch'])} compilations"
        )
    return "\n\n".join(part for part in parts if part)


def _head(plan: dict[str, Any]) -> str:
    height, width = plan["image_size"]
    chips = f"{plan['chips']} {'chip' if plan['chips'] == 1 else 'chips'}"
    instead = "" if _is_compiled_for_its_chip(plan) else ", in place of the chip's own compiler"
    return (
        f"{plan['parameters']:,} parameters, {plan['dtype']}, {height}x{width} pixels; batch {plan['batch_size']:,} on"
        f" {plan['topology']}, {chips}, {plan['batch_size'] // plan['chips']:,} images each\n"
        f"the training step of train.py, compiled for {plan['compiled_for']} by {plan['compiler']} in"
        f" {plan['compile_seconds']:.0f} s{instead}; nothing was run"
    )


def _is_compiled_for_its_chip(plan: dict[str, Any]) -> bool:
    return plan["chip"] is None or plan["chip"]["flops_per_cycle"] is not None


def _memory(plan: dict[str, Any]) -> str:
    rows = [("memory a chip", "")]
    rows += [(kind, size_text(used)) for kind, used in plan["memory_bytes"].items() if used]
    limit = plan["limit_memory_bytes"]
    if plan["total_memory_bytes"] is None:
        return plain_table(rows, numbers=(1,)) + f"\ndoes not fit: {plan['refusal']}"
    rows.append(("total", size_text(plan["total_memory_bytes"])))
    answer = "unknown whether it fits" if limit is None else "it fits" if plan["fits"] else "it does not fit"
    if plan["chip"] is None:
        beside = "free memory of this machine a device"
    elif plan["chip"]["flops_per_cycle"] is None:
        beside = "memory that JAX takes of the chip by default, three quarters"
    else:
        beside = "memory of the chip"
    return (
        plain_table(rows, numbers=(1,)) + f"\n{answer}: {size_text(limit)} {beside}. The examples that are evaluated,"
        " and their program, come beside it."
    )


def _arithmetic(plan: dict[str, Any]) -> str:
    return (
        f"arithmetic a step and chip: {plan['model_flops_per_chip'] / 1e9:,.1f} GFLOP that the network needs,"
        f" {plan['xla_flops_per_chip'] / 1e9:,.1f} in the program as XLA counts;"
        f" {plan['memory_traffic_per_chip'] / 1e9:,.2f} GB read and written in the chip's memory"
    )


def _collectives(plan: dict[str, Any]) -> str:
    if not plan["collectives"]:
        return "collectives: none"
    rows = [("collectives of a step", "format", "chips", "count", "size")]
    rows += [
        (each["opcode"], " ".join(each["dtypes"]), str(each["group"]), str(each["count"]), size_text(each["bytes"]))
        for each in plan["collectives"]
    ]
    return plain_table(rows, numbers=(2, 3, 4))


def _cycles(plan: dict[str, Any]) -> str:
    if plan["cycles"] is None:
        return "cycles: not available, since only TPU's compiler has a model of time"
    total = plan["cycles"]
    rows = [("modeled cycles of a step", "M", "share")]
    rows += [(kind, f"{cycles / 1e6:.2f}", f"{cycles / total:.0%}") for kind, cycles in plan["cycles_by_kind"].items()]
    rows.append(("total", f"{total / 1e6:.2f}", ""))
    dear = [("most expensive", "kind", "value", "", "M")]
    dear += [
        (
            each["place"],
            each["kind"],
            each["shape"],
            " ".join(["backward"] * each["backward"] + [f"{each['times']} times"] * (each["times"] > 1)),
            f"{each['cycles'] / 1e6:.2f}",
        )
        for each in plan["dearest"]
    ]
    unknown = ", ".join(f"{count} {opcode}" for opcode, count in plan["instructions_without_cycles"].items())
    note = f"\nwithout modeled cycles: {unknown}, and the collectives" if unknown else ""
    return plain_table(rows, numbers=(1, 2)) + "\n\n" + plain_table(dear, numbers=(4,)) + note


def _time(plan: dict[str, Any]) -> str:
    limits, chip = plan["roofline_seconds"], plan["chip"]
    if limits is None:
        return "time: not modeled for a CPU; python -m convnext_jax.tools.benchmark measures it"
    rows = [("time of a step", "ms", "at")]
    rates = {
        "arithmetic": f"{chip['peak_flops'] / 1e12:,.0f} TFLOP/s in bfloat16, the operations that the network needs",
        "memory": f"{chip['memory_bandwidth'] / 1e9:,.0f} GB/s, what the program reads and writes",
        "interconnect": f"{chip['link_bandwidth'] / 1e9:,.0f} GB/s sent over all links, in rings",
    }
    rows += [(f"roofline, {name}", _milliseconds(seconds), rates[name]) for name, seconds in limits.items()]
    if plan["modeled_step_seconds"] is not None:
        clock = chip["peak_flops"] / chip["flops_per_cycle"]
        on_cycles = plan["modeled_step_seconds"] - limits["interconnect"]
        rows.append(("modeled", _milliseconds(on_cycles), f"{clock / 1e9:.2f} GHz, without the collectives"))
        rows.append(("modeled, all", _milliseconds(plan["modeled_step_seconds"]), "no overlap with the collectives"))
        rate = plan["batch_size"] / plan["modeled_step_seconds"]
        share = limits["arithmetic"] / plan["modeled_step_seconds"]
        basis = f"modeled: {rate:,.0f} images/s, {share:.0%} of the peak arithmetic"
    else:
        rate = plan["batch_size"] / max(limits.values())
        basis = f"at the roofline, the most that can be: {rate:,.0f} images/s"
    steps = f"{plan['epochs']:,} epochs of {plan['steps_per_epoch']:,} steps, {plan['total_steps']:,} steps"
    return (
        plain_table(rows, numbers=(1,)) + f"\n{basis}\nthe run, {steps}: {plan['hours']:.3g} hours,"
        f" {plan['chip_hours']:.3g} chip hours, without compilation, evaluation and checkpoints"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.3g}"
