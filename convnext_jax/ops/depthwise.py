"""Depthwise convolution, fast forward and backward on every backend."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from convnext_jax.ops.banded import banded_conv
from convnext_jax.ops.shifted import shifted_conv, shifted_kernel_gradient

IMPLEMENTATIONS = ("auto", "conv", "shift", "banded")

# Up to this many pixels a matrix product beats shifted sums on a CPU, forward and backward together.
_BANDED_PIXELS = 36


def depthwise_conv2d(x: jax.Array, kernel: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """Convolves each channel with its own kernel, stride 1, zeros around the map.

    ``y[b,h,w,c] = sum over i,j of x[b,h+i-p,w+j-p,c] kernel[i,j,c]`` with ``p = k // 2``.

    Args:
      x: [B,H,W,C].
      kernel: [k,k,C] or [k,k,1,C], k odd; its gradient comes in its own dtype.
      implementation: "auto" chooses by platform and size; "conv" is XLA's grouped convolution, "shift" and
        "banded" are made for CPUs (see `convnext_jax.ops.shifted` and `convnext_jax.ops.banded`).

    Returns:
      [B,H,W,C] in the dtype of x.
    """
    size, channels = kernel.shape[0], x.shape[-1]
    if size % 2 == 0 or kernel.shape not in ((size, size, channels), (size, size, 1, channels)):
        raise ValueError(
            f"depthwise_conv2d needs a kernel [k,k,{channels}] or [k,k,1,{channels}] with odd k, got {kernel.shape}"
        )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    return _depthwise(implementation, x, kernel.reshape(size, size, channels))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(implementation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _forward(implementation, x, kernel)


def _save_inputs(implementation: str, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _forward(implementation, x, kernel), (x, kernel)


# The two functions below are jitted so that a block's trace is reused by the blocks of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _forward(implementation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _on_platform(implementation, x.shape, _FORWARD, x, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _backward(implementation: str, inputs: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _on_platform(implementation, inputs[0].shape, _BACKWARD, *inputs, grad)


_depthwise.defvjp(_save_inputs, _backward)


def _on_platform(
    implementation: str, shape: tuple[int, ...], table: dict[str, Callable[..., Any]], *operands: jax.Array
) -> Any:
    """The one place that chooses: by the platform compiled for, which need not be the one of this process."""
    if implementation != "auto":
        return table[implementation](*operands)
    on_cpu = "banded" if shape[1] * shape[2] <= _BANDED_PIXELS else "shift"
    return jax.lax.platform_dependent(*operands, cpu=table[on_cpu], default=table["conv"])


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None].astype(x.dtype),  # [k,k,1,C]
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _in_float32(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """CPUs compute bfloat16 by way of float32 anyway; once around the sums is faster and exact."""

    def call(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return function(x.astype(jnp.float32), kernel.astype(jnp.float32)).astype(x.dtype)

    return call


def _by_autodiff(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def backward(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(function, x, kernel)[1](grad)

    return backward


def _shifted_backward(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x32, kernel32, grad32 = (a.astype(jnp.float32) for a in (x, kernel, grad))
    by_x = shifted_conv(grad32, kernel32[::-1, ::-1])
    by_kernel = shifted_kernel_gradient(x32, grad32, kernel.shape[0])
    return by_x.astype(x.dtype), by_kernel.astype(kernel.dtype)


_FORWARD = {"conv": _conv, "shift": _in_float32(shifted_conv), "banded": _in_float32(banded_conv)}
_BACKWARD = {
    "conv": _by_autodiff(_FORWARD["conv"]),
    "shift": _shifted_backward,
    "banded": _by_autodiff(_FORWARD["banded"]),
}
