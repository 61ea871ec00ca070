"""LayerNorm over the channels, with a gradient that keeps its input and two numbers a pixel."""

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import unfused

EPSILON = 1e-6


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Brings the last axis to mean 0 and variance 1, scales, shifts (Ba et al. 2016); statistics in float32.

    Autodiff would keep the centred and the normalised map for the backward pass and read each of them several times;
    both follow from the input at no cost beside the memory's.

    Args:
      x: [..., C].
      scale: float32 [C].
      bias: float32 [C].

    Returns:
      [..., C] in the dtype of x.
    """
    return _normalise(x, scale, bias)[0]


@unfused
def _normalise(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[..., C], and of each pixel the mean and one over the deviation, [..., 1]."""
    x32 = x.astype(jnp.float32)
    mean = x32.mean(-1, keepdims=True)
    # The variance of the centred values: E[x^2] - E[x]^2 would lose two digits.
    variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    return (((x32 - mean) * inverse) * scale + bias).astype(x.dtype), mean, inverse


@unfused
def _gradients(
    x: jax.Array, mean: jax.Array, inverse: jax.Array, scale: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """By x [..., C], by scale and bias [C]."""
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


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, _Saved]:
    y, mean, inverse = _normalise(x, scale, bias)
    return y, (x, mean, inverse, scale)


def _backward(saved: _Saved, grad: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _gradients(*saved, grad)


layer_norm.defvjp(_forward, _backward)
