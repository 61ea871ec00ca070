"""Normalizations: LayerNorm, BatchNorm with its running statistics, Global Response Normalization."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convnext_jax.layers.parameters import Role, constant
from convnext_jax.ops.layer_norm import layer_norm

NORMS = ("layer", "batch")


class LayerNorm(nnx.Module):
    """Normalizes the last axis to mean 0 and variance 1, then scales and shifts it. Statistics are float32."""

    def __init__(self, size: int, *, epsilon: float = 1e-6) -> None:
        self.scale = constant(size, 1.0, Role.NORM)
        self.bias = constant(size, 0.0, Role.NORM)
        self.epsilon = epsilon

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[..., size] -> [..., size], the same with and without training."""
        del training
        return layer_norm(x, self.scale[...], self.bias[...], epsilon=self.epsilon)


class BatchNorm(nnx.Module):
    """Normalizes each channel to mean 0 and variance 1 over the batch and the map, then scales and shifts it.

    Outside of training, running statistics are used instead of those of the batch. All devices together make one
    batch.

    Args:
      size: channels.
      momentum: share of the batch's statistics that enters the running ones each time. PyTorch's definition.
      epsilon: added to the variance.
      scaled: whether the scale is learned; without, it is 1.

    Reference:
      Ioffe and Szegedy, `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, 2015. As in PyTorch the running
      variance is the unbiased one, and the batch is normalized by the biased one.
    """

    def __init__(self, size: int, *, momentum: float = 0.1, epsilon: float = 1e-5, scaled: bool = True) -> None:
        self.scale = constant(size, 1.0, Role.NORM) if scaled else None
        self.bias = constant(size, 0.0, Role.NORM)
        self.mean = nnx.BatchStat(jax.device_put(np.zeros(size, np.float32)))
        self.variance = nnx.BatchStat(jax.device_put(np.ones(size, np.float32)))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(self, x: jax.Array, *, training: bool = False) -> jax.Array:
        """[..., size] -> [..., size]."""
        x32 = x.astype(jnp.float32)
        mean, variance = self.mean[...], self.variance[...]
        if training:
            axes = tuple(range(x.ndim - 1))
            mean = x32.mean(axes)
            variance = jnp.square(x32 - mean).mean(axes)
            count = x.size // x.shape[-1]
            self._follow(self.mean, mean)
            self._follow(self.variance, variance * (count / max(count - 1, 1)))
        normal = (x32 - mean) * jax.lax.rsqrt(variance + self.epsilon)
        if self.scale is not None:
            normal = normal * self.scale[...]
        return (normal + self.bias[...]).astype(x.dtype)

    def _follow(self, running: nnx.BatchStat[jax.Array], batch: jax.Array) -> None:
        running[...] = (1.0 - self.momentum) * running[...] + self.momentum * jax.lax.stop_gradient(batch)


def make_norm(kind: str, size: int) -> LayerNorm | BatchNorm:
    """Returns the normalization of a name in `NORMS`."""
    return {"layer": LayerNorm, "batch": BatchNorm}[kind](size)


class GlobalResponseNorm(nnx.Module):
    """Competition between channels by their norm over the map, plus the input.

    ``gamma x g / (mean of g over channels + 1e-6) + beta + x`` with ``g`` the Euclidean norm of each channel over
    height and width. Norms are float32.

    Reference:
      Woo et al., `ConvNeXt V2 <https://arxiv.org/abs/2301.00808>`_, 2023.
    """

    def __init__(self, size: int) -> None:
        self.gamma = constant(size, 0.0, Role.RESPONSE_NORM)
        self.beta = constant(size, 0.0, Role.RESPONSE_NORM)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,size] -> [B,H,W,size]."""
        squares = jnp.square(x.astype(jnp.float32)).sum((1, 2), keepdims=True)  # [B,1,1,size]
        # The slope of a square root at 0 is infinite: the gradient of a dead channel would be 0 * inf.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
        shares = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        gain = (1.0 + self.gamma[...] * shares).astype(x.dtype)
        return x * gain + self.beta[...].astype(x.dtype)
