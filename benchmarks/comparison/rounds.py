"""Warms up the systems, checks that they compute the same, and measures them in turn."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.comparison.protocol import PARTS
from benchmarks.comparison.worker import Worker

# The largest relative differences from the reference that are allowed, for the logits and for the loss. bfloat16 has
# eight bits of precision, and float32 products on a GPU have eleven.
TOLERANCES = {"exact": (1e-4, 1e-3), "rounded": (0.1, 0.03)}


class Disagreement(Exception):
    """Two systems do not compute the same function."""


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """What a system computes before it is measured.

    Attributes:
      parameters: the number of scalars in its parameters.
      logits: the logits of the batch before training, float32 [B,K].
      loss: the loss of the last step of the warmup.
    """

    parameters: int
    logits: np.ndarray
    loss: float

    def difference(self, reference: "WarmUp") -> dict[str, float]:
        """Returns the differences relative to the reference: to its largest logit for the logits, and to its loss."""
        return {
            "logits": float(np.abs(self.logits - reference.logits).max() / np.abs(reference.logits).max()),
            "loss": abs(self.loss - reference.loss) / abs(reference.loss),
        }


def warm_up(worker: Worker, count: int, folder: Path) -> WarmUp:
    """Makes a system compile everything that will be measured, and take some steps.

    Args:
      worker: the worker that holds the system.
      count: how often a part will run in one call.
      folder: where the logits are written.
    """
    file = folder / f"logits_{worker.name}.npy"
    worker.save("logits", file)
    losses = {part: worker.call(part, count)["loss"] for part in PARTS}
    return WarmUp(worker.description["parameters"], np.load(file), losses["step"])


def check_agreement(name: str, outcome: WarmUp, reference: WarmUp, *, exact: bool) -> dict[str, float]:
    """Returns the differences of a system from the reference.

    Args:
      name: the name of the system.
      outcome: its warmup.
      reference: the warmup of the system that the others are compared with.
      exact: whether both systems compute in float32 on a CPU.

    Raises:
      Disagreement: the numbers of parameters differ, or the results differ by more than rounding explains.
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
    """The measurements of one part of a system.

    Attributes:
      seconds: the time of one forward pass, step or product, by round.
      disturbed: the largest share of the machine's cores that other processes used during a call.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    disturbed: float = 0.0


def measure_rounds(
    workers: Mapping[str, Worker], *, rounds: int, count: int, report: Callable[[str], None]
) -> dict[str, dict[str, Times]]:
    """Measures all parts of all systems in each round. The systems take turns, and each round starts with another one.

    Args:
      workers: the workers, by system.
      rounds: number of rounds.
      count: how often a part runs in one call.
      report: is called with a line after each round.

    Returns:
      The times, by system and part.
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
        report(f"round {number + 1} of {rounds}, ms per step: {steps}")
    return times
