"""The matrix product of a feature map and a kernel, with gradients in the forms that XLA runs fast on a CPU.

XLA's CPU compiler (jax 0.10 to 0.12) has two libraries for products. YNNPACK gets what is a product from the start,
Eigen what becomes one later, as a convolution with a kernel of one pixel does. For many rows, which are pixels here,
Eigen is up to 1.4 times as fast, and for the few of a single image with a large kernel too (benchmarks/notes.md). Other
platforms get the plain product.
"""

import math

import jax
import jax.numpy as jnp

from convnext_jax.ops.cpu import cpu_call
from convnext_jax.ops.partition import keep_images_apart

# From this many rows on Eigen is at least as fast, forward and backward, at every width of ConvNeXt's. From this many
# multiply-adds on, a millisecond, it is worth the time that XLA takes to compile a call.
_EIGEN_ROWS = 1024
_EIGEN_MACS = 10**8
# With so few rows most of the time goes into reading the kernel, if it is this large. One row has a way of its own.
_FEW_ROWS = 64
_LARGE_KERNEL = 2**16


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns ``x @ kernel`` over the last axis.

    >>> matmul(jnp.ones((2, 3, 4)), jnp.ones((4, 5))).shape
    (2, 3, 5)

    Args:
      x: [..., C]. Where devices share one copy of the parameters, its leading axis is the batch.
      kernel: [C,D].

    Returns:
      [..., D]
    """
    x = keep_images_apart(x)
    if _suits_eigen(x, kernel.shape[1]) or _reads_much_for_few_rows(x, kernel):
        return _eigen_product(x, kernel)
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return matmul(x, kernel), (x, kernel)  # matmul itself, so that there is a second derivative


def _backward(inputs: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    return matmul(grad, kernel.T), _kernel_gradient(keep_images_apart(x), keep_images_apart(grad))


matmul.defvjp(_forward, _backward)


def _suits_eigen(x: jax.Array, outputs: int) -> bool:
    rows = rows_of(x)
    return x.dtype == jnp.float32 and rows >= _EIGEN_ROWS and x.size * outputs >= _EIGEN_MACS


def _reads_much_for_few_rows(x: jax.Array, kernel: jax.Array) -> bool:
    return x.dtype == jnp.float32 and 1 < rows_of(x) <= _FEW_ROWS and kernel.size >= _LARGE_KERNEL


def rows_of(x: jax.Array) -> int:
    """Returns the number of rows of a map [..., C]; 0 if that is not known while it is traced."""
    rows = math.prod(x.shape[:-1])
    return rows if isinstance(rows, int) else 0  # a dynamic batch of jax.export


@jax.custom_batching.custom_vmap
def _eigen_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x, kernel, cpu=_pointwise_conv, default=jnp.matmul)


@_eigen_product.def_vmap
def _eigen_products(axis_size: int, batched: list[bool], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, bool]:
    # With a kernel for each element it would be a grouped convolution, far slower than products.
    del axis_size
    if batched[1]:
        kernel = kernel.reshape(kernel.shape[0], *(1,) * (x.ndim - batched[0] - 2), *kernel.shape[1:])
    return x @ kernel, True


# Calls, so that x is one array for the product and for the kernel's gradient. XLA would compute a GELU for each.


@cpu_call
def _pointwise_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # Over one axis: a convolution over two goes to YNNPACK. The batch stays an axis, which may be split over devices.
    maps = x.reshape(x.shape[0], -1, x.shape[-1])
    y = jax.lax.conv_general_dilated(maps, kernel[None], (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def _kernel_gradient(x: jax.Array, grad: jax.Array) -> jax.Array:
    """[..., C] and [..., D] -> [C,D].

    Autodiff forms it as ``(grad^T x)^T``, a product that XLA writes out transposed: on a CPU up to seven times slower
    than ``x^T grad`` for many rows and few channels.
    """
    inputs, outputs = x.shape[-1], grad.shape[-1]
    if not _suits_eigen(x, outputs):
        return _sum_of_products(x, grad)
    # Eigen's product is faster with the wider side in its columns. With many rows the transposition is cheap.
    on_cpu = _transposed_sum_of_products if outputs < inputs <= math.prod(x.shape[:-1]) else _sum_of_products_call
    return jax.lax.platform_dependent(x, grad, cpu=on_cpu, default=_sum_of_products)


def _sum_of_products(x: jax.Array, grad: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])


_sum_of_products_call = cpu_call(_sum_of_products)


def _transposed_sum_of_products(x: jax.Array, grad: jax.Array) -> jax.Array:
    return _sum_of_products_call(grad, x).T
