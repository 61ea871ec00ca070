"""Holds the layers of `benchmarks.comparison.layer_cases` in PyTorch, eager, float32."""

# pyright: reportMissingImports=false

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.comparison.layer_cases import Layer, serve


@functools.cache
def _tensors(layer: Layer) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(array) for name, array in layer.arrays().items()}
    if layer.kind == "convolution":
        for name in ("x", "grad"):
            tensors[name] = tensors[name].permute(0, 3, 1, 2)  # [B,C,H,W], channels last in memory
        kernel = tensors["kernel"].permute(3, 2, 0, 1)
        tensors["kernel"] = kernel.contiguous(memory_format=torch.channels_last)
    for name in tensors.keys() - {"grad"}:
        tensors[name].requires_grad_()
    return tensors


class TorchLayers:
    """The layers, maps in channels-last layout."""

    def __init__(self) -> None:
        torch.set_num_threads(os.cpu_count() or 1)

    def _forward(self, layer: Layer, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        x = tensors["x"]
        if layer.kind == "convolution":
            return functional.conv2d(x, tensors["kernel"], padding=layer.window // 2, groups=layer.groups)
        batch, length, channels = x.shape
        qkv = (x @ tensors["qkv"]).reshape(batch, length, 3, layer.heads, channels // layer.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=tensors.get("bias"))
        return mixed.transpose(1, 2).reshape(batch, length, channels) @ tensors["project"]

    def _gradients(self, layer: Layer, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        inputs = [tensor for name, tensor in tensors.items() if name != "grad"]
        output = self._forward(layer, tensors)
        return [output, *torch.autograd.grad(output, inputs, tensors["grad"])]

    def describe(self) -> dict[str, Any]:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        return {"versions": {"torch": str(torch.__version__)}}

    def results(self, layer: Layer) -> Sequence[np.ndarray]:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        results = [tensor.detach() for tensor in self._gradients(layer, _tensors(layer))]
        if layer.kind == "convolution":
            output, x, kernel = results
            results = [output.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1), kernel.permute(2, 3, 1, 0)]
        return [tensor.numpy() for tensor in results]

    def run(self, layer: Layer, part: str, count: int) -> None:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        tensors = _tensors(layer)
        for _ in range(count):
            if part == "forward":
                with torch.inference_mode():
                    self._forward(layer, tensors)
            else:
                self._gradients(layer, tensors)


if __name__ == "__main__":
    serve(TorchLayers)
