"""The middle of some measurements and how far they lie apart."""

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """Five numbers that stand for many.

    Attributes:
      median: half of them are below.
      lower: the first quartile, a quarter of them are below.
      upper: the third quartile.
      least: the smallest.
      most: the largest.
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 10.0])
        Spread(median=3.0, lower=2.0, upper=4.0, least=1.0, most=10.0)
        """
        if len(values) == 1:
            return cls(*(values[0],) * 5)
        lower, median, upper = statistics.quantiles(values, method="inclusive")
        return cls(median, lower, upper, min(values), max(values))
