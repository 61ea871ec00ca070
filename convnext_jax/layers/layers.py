"""The layers of ConvNeXt: float32 parameters, arithmetic in the dtype of the input, NHWC."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.layers.drop_path import BranchScales, drop_path
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.ops.gelu import gelu
from convnext_jax.ops.layer_norm import layer_norm
from convnext_jax.ops.matmul import matmul
from convnext_jax.ops.patches import conv_windows, merge_patches


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Draws a layer's kernels from N(0, deviation^2), as a function of its seed.

    Attributes:
      seed: of this layer alone.
      scheme: "normal", deviation 0.02 everywhere, as the reference; "fan_in", one over the root of the number of
        inputs of a sum, which keeps the size of activations in networks of any width (LeCun et al. 1998).
    """

    seed: np.random.SeedSequence
    scheme: str = "normal"

    def spawn(self, count: int) -> list["Initializer"]:
        """Initializers of as many parts, independent of each other."""
        return [Initializer(seed, self.scheme) for seed in self.seed.spawn(count)]

    def kernel(self, shape: tuple[int, ...]) -> nnx.Param[jax.Array]:
        """A kernel whose last axis is its outputs.

        The reference's ``trunc_normal_(std=.02)`` cuts at -2 and 2, a hundred deviations away: a plain normal.
        NumPy draws it, because XLA would compile a generator for each shape, ten seconds for a small model on a
        CPU; in a traced creation behind a callback, so that `jax.eval_shape` of it allocates nothing.
        """
        deviation = 0.02 if self.scheme == "normal" else 1.0 / math.sqrt(math.prod(shape[:-1]))
        draw = functools.partial(_draw_normal, self.seed, deviation, shape)
        if isinstance(jnp.zeros(()), jax.core.Tracer):
            return nnx.Param(jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, np.float32)))
        return nnx.Param(jax.device_put(draw()))


def _draw_normal(seed: np.random.SeedSequence, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal(shape, np.float32)
    normal *= np.float32(deviation)
    return normal


def initial_constant(size: int, value: float) -> nnx.Param[jax.Array]:
    """A vector that starts at one value; of strong type, or the training step would be traced again."""
    return nnx.Param(jax.device_put(np.full((size,), value, np.float32)))


class Linear(nnx.Module):
    """``x @ kernel + bias`` over the last axis."""

    def __init__(self, init: Initializer, inputs: int, outputs: int) -> None:
        self.kernel = init.kernel((inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        return matmul(x, self.kernel[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Brings the last axis to mean 0 and variance 1, scales, shifts; eps 1e-6, statistics in float32."""

    def __init__(self, size: int) -> None:
        self.scale = initial_constant(size, 1.0)
        self.bias = initial_constant(size, 0.0)

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[..., size] -> [..., size], in training and without alike."""
        del training
        return layer_norm(x, self.scale[...], self.bias[...])


class BatchNorm(nnx.Module):
    """Brings each channel to mean 0 and variance 1 over the batch and the map, scales, shifts; eps 1e-5.

    Outside training running statistics take the place of the batch's, which they follow by a tenth each step. All
    devices together make one batch. Ioffe and Szegedy 2015, arXiv 1502.03167.
    """

    def __init__(self, size: int) -> None:
        self.scale = initial_constant(size, 1.0)
        self.bias = initial_constant(size, 0.0)
        self.mean = nnx.BatchStat(jax.device_put(np.zeros(size, np.float32)))
        self.variance = nnx.BatchStat(jax.device_put(np.ones(size, np.float32)))

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[..., size] -> [..., size]."""
        x32 = x.astype(jnp.float32)
        mean, variance = self.mean[...], self.variance[...]
        if training:
            axes = tuple(range(x.ndim - 1))
            mean = x32.mean(axes)
            variance = jnp.square(x32 - mean).mean(axes)
            for running, batch in ((self.mean, mean), (self.variance, variance)):
                running[...] = 0.9 * running[...] + 0.1 * jax.lax.stop_gradient(batch)
        normal = (x32 - mean) * jax.lax.rsqrt(variance + 1e-5)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


def make_norm(kind: str, size: int) -> LayerNorm | BatchNorm:
    """The normalisation of a name in `convnext_jax.models.architectures.NORMS`."""
    return {"layer": LayerNorm, "batch": BatchNorm}[kind](size)


class GlobalResponseNorm(nnx.Module):
    """Competition between channels by their norm over the map (Woo et al. 2023), plus the input.

    ``gamma x g / (mean of g over channels + 1e-6) + beta + x`` with ``g`` the Euclidean norm of each channel over
    height and width; norms in float32.
    """

    def __init__(self, size: int) -> None:
        self.gamma = initial_constant(size, 0.0)
        self.beta = initial_constant(size, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,size] -> [B,H,W,size]."""
        squares = jnp.square(x.astype(jnp.float32)).sum((1, 2), keepdims=True)  # [B,1,1,size]
        # The slope of a square root at 0 is infinite: a dead channel's gradient would be 0 * inf.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
        shares = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        gain = (1.0 + self.gamma[...] * shares).astype(x.dtype)
        return x * gain + self.beta[...].astype(x.dtype)


class PatchConv(nnx.Module):
    """Convolution over patches that touch but do not overlap."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, size: int) -> None:
        self.kernel = init.kernel((size, size, inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H//size,W//size,outputs]."""
        return merge_patches(x, self.kernel[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)


class WindowConv(nnx.Module):
    """Convolution over overlapping windows, zeros around the image."""

    def __init__(self, init: Initializer, inputs: int, outputs: int, *, size: int, stride: int, padding: int) -> None:
        self.kernel = init.kernel((size, size, inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)
        self.stride = stride
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], H' = (H + 2 padding - size) // stride + 1."""
        kernel = self.kernel[...].astype(x.dtype)
        y = conv_windows(x, kernel, stride=self.stride, padding=self.padding)
        return y + self.bias[...].astype(x.dtype)


class DepthwiseConv(nnx.Module):
    """Convolution of each channel with its own kernel, zeros around the map; `size` is a side, or height and width."""

    def __init__(self, init: Initializer, channels: int, size: int | tuple[int, int]) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        self.kernel = init.kernel((height, width, 1, channels))
        self.bias = initial_constant(channels, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,channels] -> [B,H,W,channels]."""
        kernel = self.kernel[...]
        height, width = kernel.shape[:2]
        if height != width:
            side = max(height, width)
            kernel = jnp.pad(kernel, [((side - size) // 2,) * 2 for size in (height, width)] + [(0, 0)] * 2)
        return depthwise_conv(x, kernel) + self.bias[...].astype(x.dtype)


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of a name in `convnext_jax.models.architectures.ACTIVATIONS`."""
    return {"gelu": gelu, "relu": jax.nn.relu, "silu": jax.nn.silu}[name]


def initial_layer_scale(channels: int, value: float) -> nnx.Param[jax.Array] | None:
    """A block's layer scale, none where it starts from 0."""
    return initial_constant(channels, value) if value else None


def add_branch(
    x: jax.Array, branch: jax.Array, layer_scale: nnx.Param[jax.Array] | None, scales: BranchScales
) -> jax.Array:
    """The map plus the one branch of its block, by layer scale and drop path; [B,H,W,C] each."""
    if layer_scale is not None:
        branch = branch * layer_scale[...].astype(x.dtype)
    return x + drop_path(branch, None if scales is None else scales[0])


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Drops single values (Srivastava et al. 2014).

    Args:
      x: of any shape.
      rate: probability of a drop, in [0, 1); what is kept is divided by 1 - rate, which preserves the mean.
      key: PRNG key of this layer alone; None keeps everything.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
