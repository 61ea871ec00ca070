"""The worker's side of the protocol: each line of its standard input is a request, each line of its output an answer.

The first request is the job, which is answered when the network is built. Each later request asks for one of `PARTS`, a
given number of times in a row, and is answered with the seconds that this took. Between requests a worker waits without
using a core.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from benchmarks.comparison.case import Case

PARTS = ("forward", "step", "product")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a worker has to build.

    Attributes:
      case: the network and its images.
      options: the variant of the system, in the options that its worker knows.
      folder: the folder of the arrays that `benchmarks.comparison.inputs` wrote.
    """

    case: Case
    options: dict[str, Any]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, for `from_json` in the worker."""
        return {"case": dataclasses.asdict(self.case), "options": self.options, "folder": str(self.folder)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Job":
        """The inverse of `to_json`."""
        return cls(Case.from_json(fields["case"]), fields["options"], Path(fields["folder"]))

    def array(self, name: str) -> np.ndarray:
        """Returns ``pixels``, uint8 [B,H,W,3]; ``images``, the same normalized, float32; or ``labels``, int32 [B]."""
        return np.load(self.folder / f"{name}.npy")

    def weights(self, layout: str) -> dict[str, np.ndarray]:
        """Returns the weights by our paths (``flat``), or in the layout of ``facebookresearch`` or ``timm``."""
        with np.load(self.folder / f"weights_{layout}.npz") as arrays:
            return dict(arrays)


class Described(Protocol):
    """What a worker holds."""

    def describe(self) -> dict[str, Any]:
        """Returns plain values that say what it is."""
        ...


Served = TypeVar("Served", bound=Described)


class System(Protocol):
    """A network in some framework, with its batch, ready to run."""

    def describe(self) -> dict[str, Any]:
        """Returns ``parameters`` (number of scalars), ``versions``, ``device`` and ``product_flops`` (of `product`)."""
        ...

    def logits(self) -> np.ndarray:
        """Returns the logits of the batch with the present weights, float32 [B,K]."""
        ...

    def forward(self, count: int) -> None:
        """Computes the logits of the batch ``count`` times and returns when all are done."""
        ...

    def step(self, count: int) -> float:
        """Takes ``count`` training steps on the batch and returns the loss of the last one when all are done."""
        ...

    def product(self, count: int) -> None:
        """Computes ``count`` products of large square matrices in the dtype of the computation."""
        ...


def serve(build: Callable[[Job], System]) -> None:
    """Builds a network and answers requests until the input ends."""
    answer_requests(lambda fields: build(Job.from_json(fields)), _answer)


def answer_requests(
    build: Callable[[dict[str, Any]], Served], answer: Callable[[Served, dict[str, Any]], dict[str, Any]]
) -> None:
    """Answers requests until the input ends.

    Args:
      build: returns what the first request, the job, asks for.
      answer: returns the answer to a later request.
    """
    # Libraries may print. Their output goes to stderr, so that the original stdout carries nothing but answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    system = build(json.loads(sys.stdin.readline()))
    print(json.dumps(system.describe()), file=answers)
    for line in sys.stdin:
        print(json.dumps(answer(system, json.loads(line))), file=answers)


def _answer(system: System, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "logits":
        np.save(request["file"], system.logits())
        return {}
    call = getattr(system, {part: part for part in PARTS}[request["do"]])
    started = time.perf_counter()
    loss = call(request["count"])
    return {"seconds": time.perf_counter() - started, "loss": loss}
