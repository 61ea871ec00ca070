"""Convolutions without groups, fast on a CPU. Other platforms get XLA's.

XLA's CPU compiler (jax 0.10 to 0.12) computes the gradient by the kernel as a convolution whose window is the whole
map, several times slower than matrix products of the written-out windows, or one for each place in them. For outputs of
few pixels its convolution, and the gradient by the map, are many times slower than one product over the written-out
windows: a VGG-16 at 32 pixels gains most (benchmarks/results/network_costs_vgg16_epyc_2cores.json). Inside of a loop,
where training steps run, XLA's gradient by the map takes 1.3 to 12 times as long as the equal convolution with the
mirrored kernel (benchmarks/results/convolution_gradients_epyc_2cores.json).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from convnext_jax.ops.matmul import matmul
from convnext_jax.ops.partition import batch_parts

# Outputs of up to this many pixels are computed as one product on a CPU. On larger maps, writing out the windows costs
# more than it gives.
_FEW_PIXELS = 16
# The gradient by the kernel writes out the windows of a map of up to as many channels, those of about as many outputs
# at a time, or up to eight times as many if the batch has no other divisor. Beyond that one product for each place in
# the window is as fast.
_WRITTEN_CHANNELS = 192
_CHUNK_PIXELS = 2048

Padding = tuple[tuple[int, int], tuple[int, int]]  # zeros above and below, left and right
Convolve = Callable[["Window", jax.Array, jax.Array], jax.Array]


class Window(NamedTuple):
    """Distance between the windows of a convolution, and the zeros around the map, in pixels."""

    stride: int
    padding: Padding


def xla_conv(window: Window, x: jax.Array, kernel: jax.Array, groups: int = 1) -> jax.Array:
    """Convolves [B,H,W,C] with [k,l,C / groups,D] as XLA does it, with its gradients."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (window.stride, window.stride),
        window.padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def window_conv(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves [B,H,W,C] with [k,l,C,D] as one product: each window is written out as a row."""
    height, width, _, outputs = kernel.shape
    size, stride = (height, width), window.stride

    def windows(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
        sides = [(side - length) // stride + 1 for side, length in zip(x.shape[1:3], size, strict=True)]
        return _written_out(window, size, sides, x)

    return matmul(taken_apart(windows, x, stride), kernel.reshape(-1, outputs))


def taken_apart(pixels: Callable[[jax.Array], jax.Array], x: jax.Array, stride: int) -> jax.Array:
    """Returns ``pixels(x)``, pixels at a distance of ``stride``, so that a product can follow on every platform.

    XLA for NVIDIA GPUs (jax 0.11) would take the pixels within the product for the kernel's gradient, and dies of it:
    "triton_tiling_propagation.cc: Check failed: subdim_size_accumulator == dim_size".
    """
    if stride == 1:
        return pixels(x)
    return jax.lax.platform_dependent(x, cuda=lambda x: jax.lax.optimization_barrier(pixels(x)), default=pixels)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def dense_conv(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves a map with a kernel, without groups.

    >>> window = Window(1, ((0, 0), (0, 0)))
    >>> dense_conv(window, jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2, 1))).item()
    18.0

    Args:
      window: stride and padding.
      x: [B,H,W,C].
      kernel: [k,l,C,D].

    Returns:
      [B,H',W',D]
    """
    return _run(window, x, kernel)


def _forward(window: Window, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return dense_conv(window, x, kernel), (x, kernel)


def _backward(window: Window, inputs: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = inputs
    return _map_gradient(window, x, kernel, grad), _kernel_gradient(window, kernel.shape[:2], x, grad)


dense_conv.defvjp(_forward, _backward)


# Jitted, so that the trace of one layer is reused for the layers of the same shape.


@functools.partial(jax.jit, static_argnums=0)
def _run(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    plain = functools.partial(xla_conv, window)
    output = jax.eval_shape(plain, x, kernel)
    if math.prod(output.shape[1:3]) > _FEW_PIXELS:
        return plain(x, kernel)
    return jax.lax.platform_dependent(x, kernel, cpu=functools.partial(window_conv, window), default=plain)


@functools.partial(jax.jit, static_argnums=0)
def _map_gradient(window: Window, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
    """[B,H,W,C], [k,l,C,D] and [B,H',W',D] -> [B,H,W,C]."""

    def gradient(convolve: Convolve, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: convolve(window, x, kernel), x)[1](grad)[0]

    of_xla = functools.partial(gradient, xla_conv)
    on_cpu = functools.partial(gradient, window_conv)
    if math.prod(grad.shape[1:3]) > _FEW_PIXELS:
        on_cpu = functools.partial(_mirrored_convolution, window)
    return jax.lax.platform_dependent(x, kernel, grad, cpu=on_cpu, default=of_xla)


def _mirrored_convolution(window: Window, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
    """The same, as a convolution of the gradient, spread out by the stride, with the kernel mirrored."""
    sides = []
    for axis, (first, _) in enumerate(window.padding, 1):
        size, before = kernel.shape[axis - 1], kernel.shape[axis - 1] - 1 - first
        spread = (grad.shape[axis] - 1) * window.stride + 1
        sides.append((before, x.shape[axis] + size - 1 - spread - before, window.stride - 1))
    spread_out = jax.lax.pad(grad, jnp.zeros((), grad.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
    mirrored = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return xla_conv(Window(1, ((0, 0), (0, 0))), spread_out, mirrored)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _kernel_gradient(window: Window, size: tuple[int, int], x: jax.Array, grad: jax.Array) -> jax.Array:
    """[B,H,W,C] and [B,H',W',D] -> [k,l,C,D]."""

    def of_xla(x: jax.Array, grad: jax.Array) -> jax.Array:
        kernel = jax.ShapeDtypeStruct((*size, x.shape[-1], grad.shape[-1]), x.dtype)
        return jax.linear_transpose(lambda kernel: xla_conv(window, x, kernel), kernel)(grad)[0]

    chunks = _chunks(x, grad)
    on_cpu = _sums_of_products if chunks is None else functools.partial(_sums_of_chunks, chunks)
    return jax.lax.platform_dependent(x, grad, cpu=functools.partial(on_cpu, window, size), default=of_xla)


def _chunks(x: jax.Array, grad: jax.Array) -> int | None:
    """Returns how many chunks of the batch `_sums_of_chunks` takes; None if it is not the fastest, or gathers."""
    batch, pixels = x.shape[0], math.prod(grad.shape[1:3])
    if x.shape[-1] > _WRITTEN_CHANNELS or batch_parts() > 1:
        return None
    divisors = (count for count in range(batch, 0, -1) if batch % count == 0)
    chunks = next((count for count in divisors if batch // count * pixels >= _CHUNK_PIXELS), 1)
    return chunks if batch // chunks * pixels <= 8 * _CHUNK_PIXELS else None


def _sums_of_chunks(chunks: int, window: Window, size: tuple[int, int], x: jax.Array, grad: jax.Array) -> jax.Array:
    """The same, as a product of the written-out windows for each chunk of the batch."""
    outputs, wide = grad.shape[-1], jnp.promote_types(grad.dtype, jnp.float32)
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    padded = padded.reshape(chunks, -1, *padded.shape[1:])
    pixels = grad.reshape(chunks, -1, outputs)

    def add_chunk(number: jax.Array, total: jax.Array) -> jax.Array:
        rows = _written_out(window, size, grad.shape[1:3], padded[number])
        transposed = rows.reshape(-1, rows.shape[-1]).T
        return total + jnp.matmul(transposed, pixels[number], preferred_element_type=wide)

    zeros = jnp.zeros_like(grad, shape=(math.prod(size) * x.shape[-1], outputs), dtype=wide)
    summed = jax.lax.fori_loop(0, chunks, add_chunk, zeros)
    return summed.reshape(*size, x.shape[-1], outputs).astype(grad.dtype)


def _written_out(window: Window, size: tuple[int, int], sides: Sequence[int], padded: jax.Array) -> jax.Array:
    """[B,H,W,C] with its zeros -> [B,H',W',k l C], the windows of outputs with the sides H' and W'."""
    rows, columns = ((side - 1) * window.stride + 1 for side in sides)
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    parts = [padded[:, i : i + rows : window.stride, j : j + columns : window.stride] for i, j in places]
    return jnp.concatenate(parts, axis=-1)


def _sums_of_products(window: Window, size: tuple[int, int], x: jax.Array, grad: jax.Array) -> jax.Array:
    """The same, as a product of matrices for each place in the window."""
    stride, channels = window.stride, x.shape[-1]
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    rows, columns = ((side - 1) * stride + 1 for side in grad.shape[1:3])
    pixels = grad.reshape(-1, grad.shape[-1])

    # A loop, since as many products side by side take long to compile, and XLA would keep all their inputs.
    def at(place: jax.Array) -> jax.Array:
        start = (0, place // size[1], place % size[1], 0)
        near = jax.lax.dynamic_slice(padded, start, (x.shape[0], rows, columns, channels))[:, ::stride, ::stride]
        return near.reshape(-1, channels).T @ pixels

    products = jax.lax.map(at, jnp.arange(size[0] * size[1]))
    return products.reshape(*size, channels, grad.shape[-1])
