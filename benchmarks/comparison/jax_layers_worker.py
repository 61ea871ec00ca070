"""Holds the layers of `benchmarks.comparison.layer_cases` as this project's networks have them, float32."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.comparison.layer_cases import Layer, serve
from convnext_jax.layers.attention import MultiHeadAttention
from convnext_jax.layers.parameters import Initializer, Role, parameter
from convnext_jax.ops.convolution import conv
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.run.environment import describe_environment

Arrays = dict[str, jax.Array]


@functools.cache
def _arrays(layer: Layer) -> tuple[jax.Array, Arrays]:
    arrays = jax.tree.map(jax.numpy.asarray, layer.arrays())
    return arrays.pop("grad"), arrays


@functools.cache
def _programs(layer: Layer) -> dict[str, Callable[..., Any]]:
    forward = functools.partial(_convolve if layer.kind == "convolution" else _attend, layer)

    def forward_alone(arrays: Arrays, grad: jax.Array) -> jax.Array:
        del grad
        return forward(arrays)

    def gradient(arrays: Arrays, grad: jax.Array) -> list[jax.Array]:
        output, pull_back = jax.vjp(forward, arrays)
        found = pull_back(grad)[0]
        return [output, *(found[name] for name in layer.arrays() if name != "grad")]

    grad, arrays = _arrays(layer)
    return {
        "forward": jax.jit(forward_alone).lower(arrays, grad).compile(),
        "gradient": jax.jit(gradient).lower(arrays, grad).compile(),
    }


class JaxLayers:
    """The layers, each compiled alone."""

    def describe(self) -> dict[str, Any]:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        return {"versions": {"jax": jax.__version__}, "environment": describe_environment()}

    def results(self, layer: Layer) -> Sequence[np.ndarray]:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        grad, arrays = _arrays(layer)
        return jax.device_get(_programs(layer)["gradient"](arrays, grad))

    def run(self, layer: Layer, part: str, count: int) -> None:
        """See `benchmarks.comparison.layer_cases.LayerSystem`."""
        grad, arrays = _arrays(layer)
        program = _programs(layer)[part]
        for _ in range(count):
            jax.block_until_ready(program(arrays, grad))


def _convolve(layer: Layer, arrays: Arrays) -> jax.Array:
    x, kernel, half = arrays["x"], arrays["kernel"], layer.window // 2
    if layer.groups == layer.channels:
        return depthwise_conv(x, kernel)
    return conv(x, kernel, padding=((half, half), (half, half)), groups=layer.groups)


def _attend(layer: Layer, arrays: Arrays) -> jax.Array:
    attention = MultiHeadAttention(Initializer(np.random.SeedSequence(0)), layer.channels, layer.heads, qkv_bias=False)
    for linear, name in ((attention.qkv, "qkv"), (attention.project, "project")):
        linear.kernel, linear.bias = parameter(arrays[name], Role.LINEAR), None
    return attention(arrays["x"], bias=arrays.get("bias"))


if __name__ == "__main__":
    serve(JaxLayers)
