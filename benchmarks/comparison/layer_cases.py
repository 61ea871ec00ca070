"""The layers that are compared, and how a worker answers for them. Imports NumPy alone, which all workers have."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks.comparison.protocol import answer_requests

PARTS = ("forward", "gradient")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer and its inputs.

    Attributes:
      name: what is printed, with a network that has it.
      kind: ``convolution`` or ``attention``.
      batch: B, maps or sequences.
      length: side of a map in pixels, or tokens of a sequence.
      channels: C, before and after.
      window: side of a convolution's window, in pixels.
      groups: of a convolution; as many as channels make it depthwise.
      heads: of an attention.
      positions: whether an attention has a bias for each pair of tokens.
    """

    name: str
    kind: str
    batch: int
    length: int
    channels: int
    window: int = 0
    groups: int = 1
    heads: int = 0
    positions: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the inputs by name, float32: ``x``, ``grad`` of the same shape, and the parameters."""
        rng, channels = np.random.default_rng(0), self.channels

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32)

        if self.kind == "convolution":
            shape = (self.batch, self.length, self.length, channels)
            inputs = channels // self.groups
            kernel = normal(self.window, self.window, inputs, channels) / (self.window * inputs**0.5)
            return {"x": normal(*shape), "grad": normal(*shape), "kernel": kernel}
        shape = (self.batch, self.length, channels)
        arrays = {"x": normal(*shape), "grad": normal(*shape)}
        arrays |= {
            "qkv": normal(channels, 3 * channels) / channels**0.5,
            "project": normal(channels, channels) / channels**0.5,
        }
        if self.positions:
            arrays["bias"] = normal(1, self.heads, self.length, self.length)
        return arrays


LAYERS = (
    Layer("depthwise 3x3 (MobileNetV2)", "convolution", 64, 16, 192, window=3, groups=192),
    Layer("depthwise 5x5 (EfficientNet)", "convolution", 64, 8, 240, window=5, groups=240),
    Layer("depthwise 7x7 (ConvNeXt)", "convolution", 64, 16, 96, window=7, groups=96),
    Layer("depthwise 31x31 (RepLKNet)", "convolution", 16, 32, 128, window=31, groups=128),
    Layer("grouped 3x3, 32 groups (ResNeXt)", "convolution", 64, 16, 128, window=3, groups=32),
    Layer("dense 3x3 (ResNet-18)", "convolution", 64, 16, 128, window=3),
    Layer("attention, 65 tokens (ViT-Ti)", "attention", 64, 65, 192, heads=3),
    Layer("attention, 256 tokens (CCT-7)", "attention", 32, 256, 256, heads=4),
    Layer("attention in windows of 16 (Swin-T)", "attention", 1024, 16, 96, heads=3, positions=True),
)


class LayerSystem(Protocol):
    """The layers in some framework."""

    def describe(self) -> dict[str, Any]:
        """Returns ``versions``."""
        ...

    def results(self, layer: Layer) -> Sequence[np.ndarray]:
        """Returns the layer's output, and the gradients by ``x`` and by the kernels, in the order of `Layer.arrays`."""
        ...

    def run(self, layer: Layer, part: str, count: int) -> None:
        """Runs a layer some times, or it and its gradients, and returns when all is done."""
        ...


def serve(build: Callable[[], LayerSystem]) -> None:
    """Answers requests for a layer and a part, such as ``3:forward``, until the input ends."""
    answer_requests(lambda job: build(), _answer)


def _answer(system: LayerSystem, request: dict[str, Any]) -> dict[str, Any]:
    number, part = request["do"].split(":")
    layer = LAYERS[int(number)]
    started = time.perf_counter()
    if part == "results":
        np.savez(request["file"], *system.results(layer))
    else:
        system.run(layer, part, request["count"])
    return {"seconds": time.perf_counter() - started}
