"""Statistics of interleaved calls: medians, quartiles and paired ratios."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from convnext_jax.config import OptimConfig
from convnext_jax.tools.benchmark.timing import Spread, flops_per_image


def paired_ratio(seconds: Sequence[float], reference: Sequence[float]) -> Spread:
    """Returns the spread over the rounds of the ratio of a time to that of a reference in the same round.

    Anything that slows the machine down for a while affects both times of a round, but not their ratio.

    >>> paired_ratio([2.0, 40.0, 4.0], [1.0, 20.0, 1.0]).median
    2.0

    Raises:
      ValueError: the numbers of rounds differ.
    """
    return Spread.of([one / other for one, other in zip(seconds, reference, strict=True)])


def part_figures(
    part: str, seconds: Sequence[float], reference: Sequence[float], *, images: int, macs: int, ceiling: float
) -> dict[str, Any]:
    """Returns the figures of one part of a system, as plain values for the record.

    Args:
      part: ``forward`` or ``step``.
      seconds: the time of one batch, by round.
      reference: the same for the system that the others are compared with.
      images: number of images in a batch.
      macs: multiply-adds of a forward pass of one image.
      ceiling: floating-point operations per second of a large matrix product in the same dtype.

    Returns:
      ``milliseconds`` of a batch, and ``ratio``, the time over that of the reference, both as the fields of a `Spread`;
      ``images_per_second`` and ``share_of_ceiling``, both at the median; and the ``seconds``.
    """
    spread = Spread.of(seconds)
    return {
        "milliseconds": {name: 1e3 * value for name, value in dataclasses.asdict(spread).items()},
        "images_per_second": images / spread.median,
        "share_of_ceiling": flops_per_image(part, macs, OptimConfig()) * images / spread.median / ceiling,
        "ratio": dataclasses.asdict(paired_ratio(seconds, reference)),
        "seconds": list(seconds),
    }
