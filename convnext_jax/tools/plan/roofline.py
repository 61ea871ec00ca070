"""The least time that a step can take on a chip: arithmetic, memory and interconnect, each at its peak."""

from collections.abc import Sequence

from convnext_jax.tools.plan.chips import Chip
from convnext_jax.tools.plan.hlo import Collective

# Bytes that a chip sends, over those of the whole array, for a group of n; rings, which are optimal in bytes.
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0 if n > 1 else 0.0,
}


def bytes_sent(collectives: Sequence[Collective]) -> float:
    """Returns the bytes that each chip sends for the collectives of a step.

    >>> bytes_sent([Collective("all-reduce", 1000, 4, 1, ("f32",))])
    1500.0
    """
    return sum(each.times * each.bytes * _SENT[each.opcode](each.group) for each in collectives)


def roofline(chip: Chip, *, flops: float, accessed: float, sent: float) -> dict[str, float]:
    """Returns the seconds of a step that each limit would take alone. The largest of them is the roofline.

    Args:
      chip: what it runs on.
      flops: operations of a step on a chip.
      accessed: bytes that a step reads and writes in the memory of a chip.
      sent: bytes that a chip sends in a step.
    """
    return {
        "arithmetic": flops / chip.peak_flops,
        "memory": accessed / chip.memory_bandwidth,
        "interconnect": sent / chip.link_bandwidth,
    }
