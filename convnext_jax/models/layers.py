"""The layers of ConvNeXt: float32 parameters, arithmetic in the dtype of the input, NHWC."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.ops.depthwise import depthwise_conv2d
from convnext_jax.ops.patches import conv_windows, merge_patches

Seed = np.random.SeedSequence


def initial_kernel(seed: Seed, shape: tuple[int, ...]) -> nnx.Param[jax.Array]:
    """A kernel from N(0, 0.02), a function of the seed.

    The reference's ``trunc_normal_(std=.02)`` cuts at -2 and 2, a hundred deviations away: a plain normal.
    NumPy draws it, because XLA would compile a generator for each shape, ten seconds for a small model on a
    CPU; behind a callback, so that `jax.eval_shape` of a model's creation allocates nothing.
    """
    drawn = jax.ShapeDtypeStruct(shape, np.float32)
    return nnx.Param(jax.pure_callback(functools.partial(_draw_normal, seed, shape), drawn))


def _draw_normal(seed: Seed, shape: tuple[int, ...]) -> np.ndarray:
    normal = np.random.default_rng(seed).standard_normal(shape, np.float32)
    normal *= np.float32(0.02)
    return normal


def initial_constant(size: int, value: float) -> nnx.Param[jax.Array]:
    """A vector that starts at one value; of strong type, or the training step would be traced again."""
    return nnx.Param(jnp.asarray(np.full((size,), value, np.float32)))


class Linear(nnx.Module):
    """``x @ kernel + bias`` over the last axis."""

    def __init__(self, seed: Seed, inputs: int, outputs: int) -> None:
        self.kernel = initial_kernel(seed, (inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        return x @ self.kernel[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Brings the last axis to mean 0 and variance 1, scales, shifts; eps 1e-6, statistics in float32."""

    def __init__(self, size: int) -> None:
        self.scale = initial_constant(size, 1.0)
        self.bias = initial_constant(size, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., size] -> [..., size]."""
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True)
        # The variance of the centred values: E[x^2] - E[x]^2 would lose two digits.
        variance = jnp.square(centred).mean(-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + 1e-6)
        return (normal * self.scale[...] + self.bias[...]).astype(x.dtype)


class PatchConv(nnx.Module):
    """Convolution over patches that touch but do not overlap."""

    def __init__(self, seed: Seed, inputs: int, outputs: int, size: int) -> None:
        self.kernel = initial_kernel(seed, (size, size, inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H//size,W//size,outputs]."""
        return merge_patches(x, self.kernel[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)


class WindowConv(nnx.Module):
    """Convolution over overlapping windows, zeros around the image."""

    def __init__(self, seed: Seed, inputs: int, outputs: int, *, size: int, stride: int, padding: int) -> None:
        self.kernel = initial_kernel(seed, (size, size, inputs, outputs))
        self.bias = initial_constant(outputs, 0.0)
        self.stride = stride
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], H' = (H + 2 padding - size) // stride + 1."""
        kernel = self.kernel[...].astype(x.dtype)
        y = conv_windows(x, kernel, stride=self.stride, padding=self.padding)
        return y + self.bias[...].astype(x.dtype)


class DepthwiseConv(nnx.Module):
    """Convolution of each channel with its own size x size kernel, zeros around the map."""

    def __init__(self, seed: Seed, channels: int, size: int) -> None:
        self.kernel = initial_kernel(seed, (size, size, 1, channels))
        self.bias = initial_constant(channels, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,channels] -> [B,H,W,channels]."""
        return depthwise_conv2d(x, self.kernel[...]) + self.bias[...].astype(x.dtype)


def drop_path(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Stochastic depth (Huang et al. 2016): drops a residual branch for whole samples.

    Args:
      x: the branch's output, [B, ...].
      rate: probability of a drop, in [0, 1); what is kept is divided by 1 - rate, which preserves the mean.
      key: PRNG key of this branch alone; None keeps everything.
    """
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype))
