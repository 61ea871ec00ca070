"""The record of a comparison: figures, hardware, versions and command, as plain values for JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.comparison.case import Case
from benchmarks.comparison.figures import part_figures
from benchmarks.comparison.rounds import Times
from benchmarks.comparison.systems import SYSTEMS
from benchmarks.comparison.table import PART_NAMES
from convnext_jax.tools.benchmark.timing import Spread


def make_record(
    case: Case,
    macs: int,
    descriptions: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Mapping[str, float]],
    times: Mapping[str, Mapping[str, Times]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the record of a comparison.

    Args:
      case: what was measured.
      macs: multiply-adds of a forward pass of one image.
      descriptions: how each system describes itself. The others are compared with the first, whose description contains
        the environment.
      differences: how far the logits and the loss of each system are from those of the first.
      times: the times, by system and part.
      settings: further settings, added to the record as they are.
    """
    reference = next(iter(times))
    ceilings = _ceilings(descriptions, times)
    systems: dict[str, Any] = {}
    for name, parts in times.items():
        said = descriptions[name]
        systems[name] = {key: said[key] for key in ("versions", "device", "parameters")} | {
            "dtype": SYSTEMS[name].dtype,
            "difference": differences[name],
        }
        for part in PART_NAMES:
            found = part_figures(
                part,
                parts[part].seconds,
                times[reference][part].seconds,
                images=case.batch_size,
                macs=macs,
                ceiling=ceilings[SYSTEMS[name].dtype],
            )
            systems[name][part] = found | {"taken_by_others": parts[part].disturbed}
    return {
        "benchmark": "comparison",
        "case": dataclasses.asdict(case),
        "macs_per_image": macs,
        "ceiling_flops_per_second": ceilings,
        "reference": reference,
        "systems": systems,
        **settings,
        "environment": descriptions[reference]["environment"],
    }


def _ceilings(
    descriptions: Mapping[str, Mapping[str, Any]], times: Mapping[str, Mapping[str, Times]]
) -> dict[str, float]:
    """Returns, for each dtype, the operations per second of the system with the fastest large matrix product."""
    ceilings: dict[str, float] = {}
    for name, parts in times.items():
        rate = descriptions[name]["product_flops"] / Spread.of(parts["product"].seconds).median
        dtype = SYSTEMS[name].dtype
        ceilings[dtype] = max(rate, ceilings.get(dtype, 0.0))
    return ceilings
