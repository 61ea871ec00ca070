"""The number formats of a computation, decided in one place.

Parameters, optimizer state, moving averages, normalization statistics, logits and loss are float32 always. What a
network computes in between is a `Precision`.
"""

import dataclasses

DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Precision:
    """What a network computes in.

    Attributes:
      compute: dtype of the convolutions and matrix products, "float32" or "bfloat16".
      residual: dtype of the map that the residual branches are added to. A branch is scaled and added in float32 and
        the sum is rounded to this. In bfloat16 it costs less memory and time, and the logits are about a third less
        accurate once the branches have grown (docs/performance.md).
    """

    compute: str = "float32"
    residual: str = "float32"


def precision_of(dtype: str) -> Precision:
    """Returns the precision that a name means on this machine.

    >>> precision_of("bfloat16")
    Precision(compute='bfloat16', residual='bfloat16')

    Args:
      dtype: one of `DTYPES`. "auto" is float32 on a CPU and bfloat16 on an accelerator.
    """
    if dtype == "auto":
        import jax  # a second to import, and a configuration is checked without it

        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return Precision(dtype, dtype)
