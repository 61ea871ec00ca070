"""The chips that a run is planned for: arithmetic, memory, interconnect, and cycles of the compiler's model."""

import dataclasses

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the vendor says of a chip.

    Attributes:
      name: as in a topology, such as ``v5e``.
      peak_flops: dense bfloat16 operations a second, two for a multiply-add.
      memory_bytes: of the high-bandwidth memory.
      memory_bandwidth: of it, bytes a second.
      link_bandwidth: bytes a second that the chip sends over all its links to other chips together, which is half of
        the bidirectional figure of the data sheets.
      source: where the figures are from.
      flops_per_cycle: of the matrix units in the compiler's model of time, over all cores of the chip; None if the
        compiler gives no cycles. A large product compiled with libtpu 0.0.52 reaches 94, 97, 96 and 87% of it on v4,
        v5e, v5p and v6e.
      sizes: how a topology of it is written.
    """

    name: str
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    link_bandwidth: float
    source: str
    flops_per_cycle: int | None = None
    sizes: str = "N"

    @property
    def is_tpu(self) -> bool:
        """Whether programs are compiled for the chip itself."""
        return self.flops_per_cycle is not None

    @property
    def clock(self) -> float | None:
        """Cycles a second, from the peak and the operations of a cycle: 1.5 GHz of v5e, as is published."""
        return None if self.flops_per_cycle is None else self.peak_flops / self.flops_per_cycle


# Operations a cycle of a matrix unit of 128x128: v5e has four, v4 and v5p two cores with four each. v6e has two units
# of 256x256, eight times one of these; the compiler's model lets them do twice that in a cycle.
_UNIT = 2 * 128 * 128
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4",
            275e12,
            32 * _GIB,
            1228e9,
            300e9,
            "https://cloud.google.com/tpu/docs/v4; 6 links of 50 GB/s: Jouppi et al. 2023, table 4",
            8 * _UNIT,
            "XxYxZ",
        ),
        Chip("v5e", 197e12, 16 * _GIB, 819e9, 200e9, "https://cloud.google.com/tpu/docs/v5e", 4 * _UNIT, "XxY"),
        Chip("v5p", 459e12, 95 * _GIB, 2765e9, 600e9, "https://cloud.google.com/tpu/docs/v5p", 8 * _UNIT, "XxYxZ"),
        Chip("v6e", 918e12, 32 * _GIB, 1638e9, 400e9, "https://cloud.google.com/tpu/docs/v6e", 16 * _UNIT, "XxY"),
        Chip("a100", 312e12, 80 * 10**9, 2039e9, 300e9, "NVIDIA A100 80GB data sheet, SXM"),
        Chip("h100", 989e12, 80 * 10**9, 3350e9, 450e9, "NVIDIA H100 data sheet, SXM"),
        Chip("h200", 989e12, 141 * 10**9, 4800e9, 450e9, "NVIDIA H200 data sheet, SXM"),
        Chip("b200", 2250e12, 180 * 10**9, 8000e9, 900e9, "NVIDIA HGX B200 data sheet"),
    )
}
