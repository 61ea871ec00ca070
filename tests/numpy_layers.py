"""The layers in NumPy, as their papers define them, and random weights for them.

``params`` is the tree of a layer's parameters, in float64 for results that are exact.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from convnext_jax.layers.parameters import Initializer
from convnext_jax.models.parameters import merge_model, split_model


def initializer(scheme: str = "normal") -> Initializer:
    return Initializer(np.random.SeedSequence(0), scheme)


def randomize(tree: Any, seed: int = 1) -> Any:
    """Weights that keep activations near 1, scales around 1 and positive variances; the others around 0."""
    random = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> jax.Array:
        name, normal = path[-1].key, random.standard_normal(leaf.shape)
        if name.endswith("kernel"):
            drawn = normal / math.sqrt(math.prod(leaf.shape[:-1]))
        elif name == "variance":
            drawn = np.exp(0.3 * normal)
        else:
            drawn = 0.3 * normal + (name in ("scale", "layer_scale", "gamma"))
        return jnp.asarray(drawn, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def to_float64(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def with_random_weights(module: Any) -> tuple[Any, Any]:
    """The module with random weights and running statistics, and the weights in float64."""
    definition, params, batch_stats = split_model(module)
    params, batch_stats = randomize(params), randomize(batch_stats, seed=2)
    return merge_model(definition, params, batch_stats), to_float64(merged(params, batch_stats))


def merged(params: Any, batch_stats: Any) -> Any:
    """One tree of both, as the layers below take it."""
    if not isinstance(params, dict):
        return params
    return {
        name: merged(params.get(name, {}), batch_stats.get(name, {})) if name in params else batch_stats[name]
        for name in params | batch_stats
    }


def images(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(x: np.ndarray, params: Any) -> np.ndarray:
    return x @ params["kernel"] + params.get("bias", 0.0)


def conv(x: np.ndarray, params: Any, stride: int = 1, padding: int = 0) -> np.ndarray:
    kernel = params["kernel"]
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
    for r in range(rows):
        for c in range(columns):
            window = x[:, r * stride : r * stride + size, c * stride : c * stride + size]
            y[:, r, c] = np.tensordot(window, kernel, 3)
    return y + params.get("bias", 0.0)


def max_pool(x: np.ndarray, size: int, stride: int, padding: int = 0) -> np.ndarray:
    """Pixels that fill no window are left out."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    rows, columns = (range(0, side - size + 1, stride) for side in x.shape[1:3])
    parts = [[x[:, r : r + size, c : c + size].max((1, 2)) for c in columns] for r in rows]
    return np.stack([np.stack(row, 1) for row in parts], 1)


def depthwise(x: np.ndarray, params: Any) -> np.ndarray:
    down, across = params["kernel"].shape[:2]
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (down // 2,) * 2, (across // 2,) * 2, (0, 0)))
    taps = [(i, j) for i in range(down) for j in range(across)]
    y = sum(padded[:, i : i + height, j : j + width] * params["kernel"][i, j, 0] for i, j in taps)
    return y + params.get("bias", 0.0)


def layer_norm(x: np.ndarray, params: Any, epsilon: float = 1e-6) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * params["scale"] + params["bias"]


def batch_norm(x: np.ndarray, params: Any) -> np.ndarray:
    """By the running statistics, as outside of training."""
    return (x - params["mean"]) / np.sqrt(params["variance"] + 1e-5) * params["scale"] + params["bias"]


def response_norm(x: np.ndarray, params: Any) -> np.ndarray:
    lengths = np.sqrt((x**2).sum((1, 2), keepdims=True))
    return params["gamma"] * x * lengths / (lengths.mean(-1, keepdims=True) + 1e-6) + params["beta"] + x


def attention(x: np.ndarray, params: Any, heads: int, bias: np.ndarray | float = 0.0) -> np.ndarray:
    """One image and one head at a time, with a bias that goes with [B,heads,N,N]."""
    width = x.shape[-1] // heads
    bias = np.broadcast_to(bias, (len(x), heads, x.shape[1], x.shape[1]))
    mixed = np.zeros_like(x)
    for index, sequence in enumerate(linear(x, params["qkv"])):
        queries, keys, values = np.split(sequence, 3, -1)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = queries[:, own] @ keys[:, own].T / math.sqrt(width) + bias[index, head]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[index, :, own] = weights / weights.sum(-1, keepdims=True) @ values[:, own]
    return linear(mixed, params["project"])


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)
