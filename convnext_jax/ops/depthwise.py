"""Depthwise convolution, fast forward and backward on every backend.

Of the algorithms for a CPU none is the fastest everywhere, nor the same one forward and backward: a table of
measurements chooses (`convnext_jax.ops.depthwise_table`). XLA's convolution serves where nothing was measured.

A mixture, matrices along the rows of strips of 7, was tried on two CPU cores and is not here: on maps of 16x16x96 and a
batch of 64 its products alone took 9.9 ms, the shifted sums 5.7 in all; on 8x8x96 they took 1.46 ms of the 1.54, and
the strips have yet to be laid out.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from convnext_jax.ops.banded import banded_conv, banded_kernel_gradient
from convnext_jax.ops.depthwise_table import fastest
from convnext_jax.ops.shifted import shifted_conv, shifted_kernel_gradient
from convnext_jax.ops.cpu import cpu_call, unfused

IMPLEMENTATIONS = ("auto", "conv", "shift", "banded", "pallas")
# These alone are calls there: in a call the gradient of XLA's own convolution takes up to a hundred times as long.
_MADE_FOR_CPUS = ("shift", "banded")

# Those of `jax.lax.platform_dependent` that the table may have rows of.
_PLATFORMS = ("cpu", "cuda", "tpu")
# The Pallas programs count a map's values in 32 bits.
_PALLAS_VALUES = 2**31


def depthwise_conv(x: jax.Array, kernel: jax.Array, *, implementation: str = "auto") -> jax.Array:
    """Convolves each channel with its own kernel, stride 1, zeros around the map.

    ``y[b,h,w,c] = sum over i,j of x[b,h+i-p,w+j-p,c] kernel[i,j,0,c]`` with ``p = k // 2``, in float32 or better.

    Derivatives of any order are right in reverse mode (a Hessian is `jax.jacrev` of `jax.grad`). Forward mode
    (`jax.jvp`, and with it `jax.hessian`) is refused by `jax.custom_vjp` with a TypeError.

    Args:
      x: [B,H,W,C], float32 or bfloat16.
      kernel: [k,k,1,C] or [k,k,C], k odd; its gradient comes in its own dtype.
      implementation: "auto" chooses by platform, dtype and shape; for experiments, "conv" is XLA's grouped
        convolution, "shift" and "banded" are made for CPUs (see `convnext_jax.ops.shifted` and
        `convnext_jax.ops.banded`), "pallas" for NVIDIA GPUs (`convnext_jax.ops.depthwise_pallas`).

    Returns:
      [B,H,W,C] in the dtype of x.

    Raises:
      ValueError: the kernel fits no odd size or not the channels of x, or there is no such implementation.
    """
    size, channels = kernel.shape[0], x.shape[-1]
    if size % 2 == 0 or kernel.shape not in ((size, size, 1, channels), (size, size, channels)):
        raise ValueError(
            f"depthwise_conv needs a kernel [k,k,1,{channels}] or [k,k,{channels}] with odd k, got {kernel.shape}"
        )
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    return _convolve(implementation, x, kernel.reshape(size, size, channels))


_Algorithms = Mapping[str, Callable[..., jax.Array]]

# The convolution and the gradient by its kernel are bilinear, and each one's derivatives are the two again.


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


# Jitted so that a block's trace is reused by the blocks of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _run_convolve(implementation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _on_platform(implementation, "forward", kernel.shape[0], _CONVOLVE, x, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_kernel_gradient(implementation: str, size: int, x: jax.Array, grad: jax.Array) -> jax.Array:
    algorithms = {name: functools.partial(function, size=size) for name, function in _KERNEL_GRADIENT.items()}
    return _on_platform(implementation, "kernel_gradient", size, algorithms, x, grad)


def _on_platform(
    implementation: str, operation: str, size: int, algorithms: _Algorithms, x: jax.Array, other: jax.Array
) -> jax.Array:
    """The one place that chooses: by the platform compiled for, which need not be the one of this process."""
    if implementation != "auto":
        algorithm = algorithms[implementation]
        return (unfused(algorithm) if implementation in _MADE_FOR_CPUS else algorithm)(x, other)
    chosen = {}
    for platform in _PLATFORMS:
        name = fastest(operation, platform, x.shape, size, x.dtype.name)
        if name is not None and not (name == "pallas" and x.size >= _PALLAS_VALUES):
            own = platform == "cpu" and name in _MADE_FOR_CPUS
            chosen[platform] = cpu_call(algorithms[name]) if own else algorithms[name]
    return jax.lax.platform_dependent(x, other, default=algorithms["conv"], **chosen)


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


# CPUs compute bfloat16 by way of float32 anyway; once around the sums is faster and exact.


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


# Pallas is imported by those who use it alone.


def _pallas_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    from convnext_jax.ops.depthwise_pallas import pallas_conv

    return pallas_conv(x, kernel.astype(jnp.float32))


def _pallas_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    from convnext_jax.ops.depthwise_pallas import pallas_kernel_gradient

    return pallas_kernel_gradient(x, grad, size).astype(_wide(x.dtype))


_CONVOLVE = {
    "conv": _conv,
    "shift": _convolve_wide(shifted_conv),
    "banded": _convolve_wide(banded_conv),
    "pallas": _pallas_conv,
}
_KERNEL_GRADIENT = {
    "conv": _conv_kernel_gradient,
    "shift": _kernel_gradient_wide(shifted_kernel_gradient),
    "banded": _kernel_gradient_wide(banded_kernel_gradient),
    "pallas": _pallas_kernel_gradient,
}
