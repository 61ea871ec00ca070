"""A worker of `benchmarks.comparison` without a network, for the tests of the conversation."""

import sys
import time
from typing import Any

import numpy as np

from benchmarks.comparison.protocol import Job, serve


class Fake:
    """Takes ``seconds`` for one of anything; ``shift`` is added to its logits; it ends at step ``fail_at``."""

    def __init__(self, job: Job) -> None:
        print("a library prints on the standard output")
        if job.options.get("broken"):
            raise RuntimeError("no such device")
        self.case, self.options, self.steps = job.case, job.options, 0

    def describe(self) -> dict[str, Any]:
        return {"parameters": self.options.get("parameters", 5), "versions": {}, "device": "cpu", "product_flops": 100}

    def logits(self) -> np.ndarray:
        logits = np.ones((self.case.batch_size, self.case.num_classes), np.float32)
        return logits + np.float32(self.options.get("shift", 0.0))

    def forward(self, count: int) -> None:
        time.sleep(count * self.options.get("seconds", 0.0))

    def step(self, count: int) -> float:
        print("a step")
        self.forward(count)
        self.steps += count
        if self.steps >= self.options.get("fail_at", 1e9):
            sys.exit("out of memory")
        return 2.0 / self.steps

    def product(self, count: int) -> None:
        self.forward(count)


if __name__ == "__main__":
    serve(Fake)
