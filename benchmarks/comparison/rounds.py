"""Systems warmed up, shown to compute the same, and measured in turn."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.comparison.protocol import PARTS
from benchmarks.comparison.worker import Worker

# Largest difference from the reference's, of the logits in units of their largest value and of the loss in its own.
# bfloat16 has eight bits, as the products of float32 on a GPU have eleven.
TOLERANCES = {"exact": (1e-4, 1e-3), "rounded": (0.1, 0.03)}


class Disagreement(Exception):
    """Two systems do not compute the same network."""


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """What a system computes before it is measured.

    Attributes:
      parameters: how many scalars it has.
      logits: of the batch, before training, float32 [B,K].
      loss: the last of the warm-up's steps.
    """

    parameters: int
    logits: np.ndarray
    loss: float

    def difference(self, reference: "WarmUp") -> dict[str, float]:
        """Returns the differences, of the logits over the reference's largest, of the loss over the reference's."""
        return {
            "logits": float(np.abs(self.logits - reference.logits).max() / np.abs(reference.logits).max()),
            "loss": abs(self.loss - reference.loss) / abs(reference.loss),
        }


def warm_up(worker: Worker, count: int, folder: Path) -> WarmUp:
    """Has a system compile everything that is measured, and take some steps.

    Args:
      worker: holds the system.
      count: how many of a part will be asked for in a row.
      folder: for the logits.
    """
    file = folder / f"logits_{worker.name}.npy"
    worker.save_logits(file)
    losses = {part: worker.call(part, count)["loss"] for part in PARTS}
    return WarmUp(worker.description["parameters"], np.load(file), losses["step"])


def check_agreement(name: str, outcome: WarmUp, reference: WarmUp, *, exact: bool) -> dict[str, float]:
    """The differences of a system from the reference.

    Args:
      name: of the system.
      outcome: its.
      reference: of the system that others are compared with.
      exact: whether both compute in float32 on a CPU.

    Raises:
      Disagreement: they have another number of parameters, or differ by more than rounding can.
    """
    if outcome.parameters != reference.parameters:
        raise Disagreement(f"{name} has {outcome.parameters:,} parameters, the reference {reference.parameters:,}")
    difference = outcome.difference(reference)
    allowed = dict(zip(("logits", "loss"), TOLERANCES["exact" if exact else "rounded"], strict=True))
    for what, limit in allowed.items():
        if not difference[what] <= limit:
            raise Disagreement(
                f"{name} computes another network: its {what} differ from the reference's by {difference[what]:.1e},"
                f" more than {limit:g}"
            )
    return difference


@dataclasses.dataclass
class Times:
    """What was measured of a part of a system.

    Attributes:
      seconds: of one, by round.
      disturbed: the largest share of the machine's cores that others took during a call.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    disturbed: float = 0.0


def measure_rounds(
    workers: Mapping[str, Worker], *, rounds: int, count: int, report: Callable[[str], None]
) -> dict[str, dict[str, Times]]:
    """Measures all parts of all systems in each round, one after another, every round beginning with another system.

    Args:
      workers: by system.
      rounds: how many.
      count: how many of a part in a row, in one call.
      report: takes a line a round.

    Returns:
      Times by system and part.
    """
    times = {name: {part: Times() for part in PARTS} for name in workers}
    names = list(workers)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for part in PARTS:
                seconds, share = workers[name].measure(part, count)
                found = times[name][part]
                found.seconds.append(seconds)
                found.disturbed = max(found.disturbed, share)
        steps = ", ".join(f"{name} {1e3 * times[name]['step'].seconds[-1]:.0f}" for name in names)
        report(f"round {number + 1} of {rounds}, ms a step: {steps}")
    return times
