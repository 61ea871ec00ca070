"""Times of interleaved calls, in figures: medians, quartiles and paired ratios."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from convnext_jax.config import OptimConfig
from convnext_jax.tools.benchmark.timing import Spread, flops_per_image


def paired_ratio(seconds: Sequence[float], reference: Sequence[float]) -> Spread:
    """How many times as long as a reference: each round's ratio of the two times, and the spread of these.

    What slows the machine down for a while slows both times of a round and leaves their ratio alone.

    >>> paired_ratio([2.0, 40.0, 4.0], [1.0, 20.0, 1.0]).median
    2.0

    Raises:
      ValueError: the times are of different rounds.
    """
    return Spread.of([one / other for one, other in zip(seconds, reference, strict=True)])


def part_figures(
    part: str, seconds: Sequence[float], reference: Sequence[float], *, images: int, macs: int, ceiling: float
) -> dict[str, Any]:
    """The figures of a system's part, plain values for the record.

    Args:
      part: ``forward`` or ``step``.
      seconds: of one batch, by round.
      reference: the same of the system that others are compared with.
      images: of a batch.
      macs: multiply-adds of a forward pass for one image.
      ceiling: floating-point operations a second of a large matrix product in the same dtype.

    Returns:
      ``milliseconds`` of a batch and ``ratio``, times as long as the reference, each a :class:`Spread`;
      ``images_per_second`` and ``share_of_ceiling`` at the median; and the ``seconds``.
    """
    spread = Spread.of(seconds)
    return {
        "milliseconds": {name: 1e3 * value for name, value in dataclasses.asdict(spread).items()},
        "images_per_second": images / spread.median,
        "share_of_ceiling": flops_per_image(part, macs, OptimConfig()) * images / spread.median / ceiling,
        "ratio": dataclasses.asdict(paired_ratio(seconds, reference)),
        "seconds": list(seconds),
    }
