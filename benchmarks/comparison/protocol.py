"""A worker's side of the conversation: a request a line on its standard input, an answer a line on its output.

The first line is the job, answered when the network is built; then `PARTS` are asked for, so many of one in a row, and
answered with the seconds that they took. Between two requests a worker waits and uses no core.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.comparison.case import Case

PARTS = ("forward", "step", "product")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker is to hold.

    Attributes:
      case: the network and its images.
      options: which form of the system, by the names that its worker knows.
      folder: with the arrays that `benchmarks.comparison.inputs` wrote.
    """

    case: Case
    options: dict[str, Any]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Plain values, for `from_json` on the other side."""
        return {"case": dataclasses.asdict(self.case), "options": self.options, "folder": str(self.folder)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Job":
        """The inverse of `to_json`."""
        return cls(Case.from_json(fields["case"]), fields["options"], Path(fields["folder"]))

    def array(self, name: str) -> np.ndarray:
        """``pixels`` uint8 and ``images`` float32 [B,H,W,3], the same normalised, or ``labels`` int32 [B]."""
        return np.load(self.folder / f"{name}.npy")

    def weights(self, layout: str) -> dict[str, np.ndarray]:
        """The weights by our paths (``flat``) or in the names and shapes of ``facebookresearch`` or ``timm``."""
        with np.load(self.folder / f"weights_{layout}.npz") as arrays:
            return dict(arrays)


class System(Protocol):
    """A network in one framework, with its batch, ready to run."""

    def describe(self) -> dict[str, Any]:
        """``parameters``, the number of scalars; ``versions``; ``device``; ``product_flops`` of one `product`."""
        ...

    def logits(self) -> np.ndarray:
        """Float32 [B,K] of the batch with the weights as they are."""
        ...

    def forward(self, count: int) -> None:
        """Takes the batch's logits so many times and returns when the last are there."""
        ...

    def step(self, count: int) -> float:
        """Takes so many training steps on the batch and returns the last one's loss when all are done."""
        ...

    def product(self, count: int) -> None:
        """Takes so many products of large square matrices, in the dtype of the computation."""
        ...


def serve(build: Callable[[Job], System]) -> None:
    """Answers requests until the input ends."""
    # What libraries print goes to the error output; the answers have the old standard output to themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    system = build(Job.from_json(json.loads(sys.stdin.readline())))
    print(json.dumps(system.describe()), file=answers)
    for line in sys.stdin:
        print(json.dumps(_answer(system, json.loads(line))), file=answers)


def _answer(system: System, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "logits":
        np.save(request["file"], system.logits())
        return {}
    call = getattr(system, {part: part for part in PARTS}[request["do"]])
    started = time.perf_counter()
    loss = call(request["count"])
    return {"seconds": time.perf_counter() - started, "loss": loss}
