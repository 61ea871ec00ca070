"""Depthwise convolution, with gradients of its own that are fast on every platform.

On a CPU rules choose the algorithm, by the size of the map and of the kernel (benchmarks/notes.md). A TPU gets products
in its matrix units, except for the kernel's gradient. All else is XLA's grouped convolution, but for the kernel's
gradient on the smallest maps of an NVIDIA GPU.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import cpu_call, unfused_on_cpu
from convnext_jax.ops.depthwise_cpu import (
    banded_conv,
    banded_kernel_gradient,
    direct_conv,
    shifted_conv,
    shifted_kernel_gradient,
)
from convnext_jax.ops.depthwise_tpu import strip_conv, suits_strips
from convnext_jax.ops.partition import batch_parts, sum_over_parts

IMPLEMENTATIONS = ("auto", "conv", "direct", "shift", "banded", "strip")
# On a CPU: the most pixels for banded matrices, which have the square of that for each channel; the most taps whose
# channels stay together on any map; and the most on a map of at least so many pixels.
_BANDED_PIXELS = 256
_DIRECT_TAPS = 9
_DIRECT_TAPS_OF_LARGE_MAPS, _LARGE_MAP_PIXELS = 25, 256
# Up to this many pixels cuDNN's gradient by the kernel is slow: at 4x4 nine times as slow as banded matrices on an
# H100, at 8x8 as fast (benchmarks/results/depthwise_h100.json).
_GPU_BANDED_PIXELS = 16


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """Convolves each channel with its own kernel, with stride 1 and zeros around the map.

    ``y[b,h,w,c] = sum over i,j of x[b,h+i-p,w+j-p,c] kernel[i,j,0,c]`` with ``p = k // 2``, in float32 or better.

    Derivatives of any order are right in reverse mode (a Hessian is `jax.jacrev` of `jax.grad`). `jax.custom_vjp`
    refuses forward mode (`jax.jvp`, and with it `jax.hessian`) with a TypeError.

    >>> depthwise_conv(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1)))[0, :, :, 0].tolist()
    [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]

    Args:
      x: [B,H,W,C], float32 or bfloat16.
      kernel: [k,k,1,C] or [k,k,C], k odd. Its gradient has its own dtype.
      implementation: "auto" chooses by platform and shape. For experiments, "conv" is XLA's grouped convolution,
        "direct", "shift" and "banded" are the algorithms of `convnext_jax.ops.depthwise_cpu`, and "strip" is that of
        `convnext_jax.ops.depthwise_tpu`. "direct" has the gradient by the kernel of "shift", "strip" that of "conv".

    Returns:
      [B,H,W,C] in the dtype of x.

    Raises:
      ValueError: the kernel is not square and odd or does not match the channels of x, or there is no such
        implementation.
    """
    size, channels = kernel.shape[0], x.shape[-1]
    if size % 2 == 0 or kernel.shape not in ((size, size, 1, channels), (size, size, channels)):
        raise ValueError(
            f"depthwise_conv needs a kernel [k,k,1,{channels}] or [k,k,{channels}] with odd k, got {kernel.shape}"
        )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    return _convolve(implementation, x, kernel.reshape(size, size, channels))


# The convolution and the gradient by its kernel are bilinear, and the derivatives of each are the two again.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(implementation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B,H,W,C] and [k,k,C] -> [B,H,W,C] in the dtype of x."""
    return _run_convolve(implementation, x, kernel)


def _convolve_fwd(implementation: str, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _run_convolve(implementation, x, kernel), (x, kernel)


def _convolve_bwd(implementation: str, inputs: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, ...]:
    x, kernel = inputs
    by_kernel = _kernel_gradient(implementation, kernel.shape[0], x, grad)
    return _convolve(implementation, grad, kernel[::-1, ::-1]), jnp.asarray(by_kernel, kernel.dtype)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _kernel_gradient(implementation: str, size: int, x: jax.Array, grad: jax.Array) -> jax.Array:
    """The gradient by the kernel: twice [B,H,W,C] -> [size,size,C] in float32 or better."""
    return _run_kernel_gradient(implementation, size, x, grad)


def _kernel_gradient_fwd(
    implementation: str, size: int, x: jax.Array, grad: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _run_kernel_gradient(implementation, size, x, grad), (x, grad)


def _kernel_gradient_bwd(
    implementation: str, size: int, inputs: tuple[jax.Array, jax.Array], kernel: jax.Array
) -> tuple[jax.Array, ...]:
    del size
    x, grad = inputs
    return _convolve(implementation, grad, kernel[::-1, ::-1]), _convolve(implementation, x, kernel)


_kernel_gradient.defvjp(_kernel_gradient_fwd, _kernel_gradient_bwd)


# Jitted, so that the trace of one block is reused for the blocks of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _run_convolve(implementation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    pixels, taps = x.shape[1] * x.shape[2], kernel.shape[0] ** 2
    if pixels <= min(taps, _BANDED_PIXELS):
        on_cpu = "banded"
    else:
        most = _DIRECT_TAPS_OF_LARGE_MAPS if pixels >= _LARGE_MAP_PIXELS else _DIRECT_TAPS
        on_cpu = "direct" if taps <= most else "shift"
    on_tpu = "strip" if suits_strips(x, kernel.shape[0], batch_parts()) else "conv"
    return _on_platform(implementation, _CONVOLVE, x, kernel, cpu=on_cpu, tpu=on_tpu)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_kernel_gradient(implementation: str, size: int, x: jax.Array, grad: jax.Array) -> jax.Array:
    pixels, taps = x.shape[1] * x.shape[2], size**2
    algorithms = {name: functools.partial(function, size=size) for name, function in _KERNEL_GRADIENT.items()}
    algorithms["banded"] = functools.partial(sum_over_parts, algorithms["banded"])
    on_cpu = "banded" if pixels <= min(2 * taps, _BANDED_PIXELS) else "shift"
    on_gpu = "banded" if pixels <= _GPU_BANDED_PIXELS else "conv"
    return _on_platform(implementation, algorithms, x, grad, cpu=on_cpu, cuda=on_gpu)


def _on_platform(
    implementation: str,
    algorithms: Mapping[str, Callable[..., jax.Array]],
    x: jax.Array,
    other: jax.Array,
    *,
    cpu: str,
    cuda: str = "conv",
    tpu: str = "conv",
) -> jax.Array:
    """The one place that chooses: by the platform compiled for, which need not be the one of this process."""
    if implementation == "auto":
        others = {name: algorithms[own] for name, own in (("cuda", cuda), ("tpu", tpu)) if own != "conv"}
        return jax.lax.platform_dependent(x, other, cpu=cpu_call(algorithms[cpu]), **others, default=algorithms["conv"])
    # XLA's own convolution is no call: in a call its gradient takes up to a hundred times as long.
    algorithm = algorithms[implementation]
    return (algorithm if implementation == "conv" else unfused_on_cpu(algorithm))(x, other)


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None].astype(x.dtype),  # [k,k,1,C]
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _conv_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    kernel = jax.ShapeDtypeStruct((size, size, x.shape[-1]), x.dtype)
    (by_kernel,) = jax.linear_transpose(functools.partial(_conv, x), kernel)(grad)
    return by_kernel.astype(_wide(x.dtype))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


# A CPU computes bfloat16 by way of float32 anyway. Converting once around the sums is faster, and exact.


def _convolve_wide(convolve: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def call(x: jax.Array, kernel: jax.Array) -> jax.Array:
        wide = _wide(x.dtype)
        return convolve(x.astype(wide), kernel.astype(wide)).astype(x.dtype)

    return call


def _kernel_gradient_wide(kernel_gradient: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def call(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
        wide = _wide(x.dtype)
        return kernel_gradient(x.astype(wide), grad.astype(wide), size)

    return call


_CONVOLVE = {
    "conv": _conv,
    "direct": _convolve_wide(direct_conv),
    "shift": _convolve_wide(shifted_conv),
    "banded": _convolve_wide(banded_conv),
    "strip": strip_conv,
}
_KERNEL_GRADIENT = {
    "conv": _conv_kernel_gradient,
    "direct": _kernel_gradient_wide(shifted_kernel_gradient),
    "shift": _kernel_gradient_wide(shifted_kernel_gradient),
    "banded": _kernel_gradient_wide(banded_kernel_gradient),
    "strip": _conv_kernel_gradient,
}
