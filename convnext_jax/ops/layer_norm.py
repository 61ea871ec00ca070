"""LayerNorm over the channels, with a gradient that keeps its input and two numbers a pixel."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import unfused_on_cpu


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float = 1e-6) -> jax.Array:
    """Normalizes the last axis to mean 0 and variance 1, then scales and shifts it. Statistics are float32.

    Autodiff would keep the centered and the normalized map for the backward pass and read each of them several times.
    Both follow from the input at no cost beside that of reading it.

    >>> layer_norm(jnp.array([1.0, 3.0]), jnp.ones(2), jnp.zeros(2)).round(3).tolist()
    [-1.0, 1.0]

    Args:
      x: [..., C].
      scale: float32 [C].
      bias: float32 [C].
      epsilon: added to the variance.

    Returns:
      [..., C] in the dtype of x.

    Reference:
      Ba et al., `Layer Normalization <https://arxiv.org/abs/1607.06450>`_, 2016.
    """
    return _layer_norm(epsilon, x, scale, bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return _normalize(epsilon)(x, scale, bias)[0]


@functools.cache
def _normalize(epsilon: float) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    return unfused_on_cpu(functools.partial(_normalize_by, epsilon))


def _normalize_by(
    epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the output [..., C], and for each pixel the mean and the inverse standard deviation, [..., 1]."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    # The variance of the centered values: E[x^2] - E[x]^2 would lose two digits.
    variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return (((x32 - mean) * inverse) * scale + bias).astype(x.dtype), mean, inverse


@unfused_on_cpu
def _gradients(
    x: jax.Array, mean: jax.Array, inverse: jax.Array, scale: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients by x, [..., C], and by scale and bias, [C]."""
    normal = (x.astype(jnp.float32) - mean) * inverse
    grad32 = grad.astype(jnp.float32)
    by_normal = grad32 * scale
    # Neither the mean of a pixel's channels nor their deviation can move the output.
    along_mean = by_normal.mean(-1, keepdims=True)
    along_normal = (by_normal * normal).mean(-1, keepdims=True)
    by_x = (by_normal - along_mean - normal * along_normal) * inverse
    pixels = tuple(range(x.ndim - 1))
    return by_x.astype(x.dtype), (grad32 * normal).sum(pixels), grad32.sum(pixels)


_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, _Saved]:
    y, mean, inverse = _normalize(epsilon)(x, scale, bias)
    return y, (x, mean, inverse, scale)


def _backward(epsilon: float, saved: _Saved, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    return _gradients(*saved, grad)


_layer_norm.defvjp(_forward, _backward)
