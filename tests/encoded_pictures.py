"""Encoded pictures for processes that decode. They import this file, so it imports nothing slow."""

import io
import os
import signal
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from convnext_jax.data.decode import Picture

SHAPE = (6, 5, 3)


class Pictures:
    """300 pictures, of which number 123 is ``broken``, or kills the process that reads it, or lets it wait forever."""

    def __init__(self, special: str) -> None:
        self.special = special

    def __len__(self) -> int:
        return 300

    def read_at(self, indices: Sequence[int]) -> Iterator[Picture]:
        for index in indices:
            if index == 123 and self.special == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if index == 123 and self.special == "waits":
                time.sleep(1000)
            buffer = io.BytesIO()
            Image.fromarray(np.full(SHAPE, index % 256, np.uint8)).save(buffer, "png")
            yield Picture(f"train[{index}] of x", b"nothing" if index == 123 else buffer.getvalue(), 0)
