"""Convolutions in groups, fast on a CPU. Other platforms get XLA's.

XLA's CPU compiler (jax 0.10 to 0.12) has plain loops for them, and slower ones for their gradients. Instead:

- Small groups, on maps that are wide enough, are sums of shifted maps, as a depthwise convolution is, with the pixels
  of a row next to each other in memory.
- Several of other groups are made one dense convolution with zeros in its kernel. It computes more, at the speed of
  matrix products. So is the gradient by the kernel of all groups.
- A depthwise convolution with a stride is this project's depthwise convolution, of which the stride leaves pixels out.

Measured in benchmarks/notes.md.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.ops.cpu import cpu_call
from convnext_jax.ops.dense_convolution import Window, dense_conv, xla_conv
from convnext_jax.ops.depthwise import depthwise_conv

# Groups are made one up to about as many channels: for the convolution and its gradient by the map, and for that by the
# kernel, whose products have more rows than any other.
_CHANNELS = 32
_KERNEL_CHANNELS = 16
# Sums of shifted maps are for groups of up to as many inputs and outputs, and for rows of at least as many pixels.
_SMALL_GROUP = 8
_WIDE_ROW = 8


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def grouped_conv(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves each group of channels with its own kernels.

    >>> window = Window(1, ((0, 0), (0, 0)))
    >>> grouped_conv(window, 2, jnp.ones((1, 1, 1, 4)), jnp.ones((1, 1, 2, 2))).tolist()
    [[[[2.0, 2.0]]]]

    Args:
      window: stride and padding.
      groups: a divisor of C and of D.
      x: [B,H,W,C].
      kernel: [k,l,C / groups,D].

    Returns:
      [B,H',W',D]
    """
    return _run(window, groups, x, kernel)


def _forward(
    window: Window, groups: int, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return grouped_conv(window, groups, x, kernel), (x, kernel)  # itself, so that there is a second derivative


def _backward(
    window: Window, groups: int, inputs: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _run_gradients(window, groups, *inputs, grad)


grouped_conv.defvjp(_forward, _backward)


# Jitted, so that the trace of one layer is reused for the layers of the same shape.


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    if _is_depthwise(window, groups, x, kernel):
        on_cpu = _depthwise
    else:
        on_cpu = _shifted if _suits_shifts(window, groups, x, kernel) else _merged
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(on_cpu, window, groups),
        default=functools.partial(xla_conv, window, groups=groups),
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_gradients(
    window: Window, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def gradients_of(
        convolve: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, grad: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        by_x, by_kernel = jax.vjp(convolve, x, kernel)[1](grad)
        return by_x, by_kernel

    if _is_depthwise(window, groups, x, kernel):
        on_cpu = functools.partial(gradients_of, functools.partial(_depthwise, window, groups))
    else:
        on_cpu = functools.partial(_gradients, window, groups)
    return jax.lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=on_cpu,
        default=functools.partial(gradients_of, functools.partial(xla_conv, window, groups=groups)),
    )


def _is_depthwise(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `depthwise_conv` computes it: a kernel for each channel, square and odd, and a map of the same size."""
    height, width, _, outputs = kernel.shape
    margin = (height // 2, height // 2)
    square = height == width and height % 2 == 1 and window.padding == (margin, margin)
    return square and groups == x.shape[-1] == outputs


def _depthwise(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    del groups
    return depthwise_conv(x, kernel)[:, :: window.stride, :: window.stride]


def _suits_shifts(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> bool:
    """Whether `_shifted` is the fastest, of the convolution and of its gradient by the map."""
    height, width, inputs, outputs = kernel.shape
    larger = max(inputs, outputs // groups)
    small = larger <= _SMALL_GROUP and height * width * larger <= 9 * _SMALL_GROUP
    inside = all(max(zeros) < size for zeros, size in zip(window.padding, (height, width), strict=True))
    return window.stride == 1 and small and inside and x.shape[2] >= _WIDE_ROW


def _shifted(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A sum of shifted maps, for stride 1, in float32 or better."""
    height, width, inputs, outputs = kernel.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    kernel = kernel.astype(wide)
    padded = jnp.pad(x.astype(wide), ((0, 0), *window.padding, (0, 0)))
    batch, *sides, _ = padded.shape
    maps = padded.transpose(0, 3, 1, 2).reshape(batch, groups, inputs, *sides)
    taps = kernel.reshape(height, width, inputs, groups, outputs // groups).transpose(3, 0, 1, 2, 4)
    summed = _sum_of_taps(maps, taps)  # [B,groups,D / groups,H',W']
    return summed.reshape(batch, outputs, *summed.shape[3:]).transpose(0, 2, 3, 1).astype(x.dtype)


# A call. Otherwise XLA would skip the transpositions.
@cpu_call
def _sum_of_taps(maps: jax.Array, taps: jax.Array) -> jax.Array:
    """[B,G,c,H,W] and [G,k,l,c,d] -> [B,G,d,H-k+1,W-l+1]."""
    _, height, width, inputs, _ = taps.shape
    rows, columns = maps.shape[3] - height + 1, maps.shape[4] - width + 1

    def row(i: int) -> jax.Array:
        terms = [
            maps[:, :, None, channel, i : i + rows, j : j + columns] * taps[:, i, j, channel, :, None, None]
            for channel in range(inputs)
            for j in range(width)
        ]
        return functools.reduce(jnp.add, terms)

    return functools.reduce(jnp.add, map(row, range(height)))


def _merged(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Dense convolutions of several groups each."""
    parts = _parts(groups, x.shape[-1], _CHANNELS)
    kernels = _merge_groups(groups // parts, parts, kernel)
    # In turn, so that one is compiled for all of them.
    return _join(jax.lax.map(lambda part: dense_conv(window, *part), (_split(x, parts), kernels)))


def _gradients(
    window: Window, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    if _suits_shifts(window, groups, x, kernel):
        by_x = _shifted(_opposite(window, kernel), groups, grad, _transposed(groups, kernel))
    else:
        by_x = jax.vjp(lambda x: _merged(window, groups, x, kernel), x)[1](grad)[0]
    return by_x, _merged_kernel_gradient(window, groups, x, kernel, grad)


def _opposite(window: Window, kernel: jax.Array) -> Window:
    """Returns the window of the gradient by the map of a convolution with stride 1."""
    (above, below), (left, right) = window.padding
    height, width = kernel.shape[0] - 1, kernel.shape[1] - 1
    return Window(1, ((height - above, height - below), (width - left, width - right)))


def _transposed(groups: int, kernel: jax.Array) -> jax.Array:
    """Returns the kernel from outputs to inputs: [k,l,c,G d] -> [k,l,d,G c], mirrored."""
    height, width, inputs, outputs = kernel.shape
    kernel = kernel[::-1, ::-1].reshape(height, width, inputs, groups, outputs // groups)
    return kernel.transpose(0, 1, 4, 3, 2).reshape(height, width, outputs // groups, groups * inputs)


def _merged_kernel_gradient(window: Window, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> jax.Array:
    parts = _parts(groups, x.shape[-1], _KERNEL_CHANNELS)
    merge = functools.partial(_merge_groups, groups // parts, parts)

    def gradient(part: tuple[jax.Array, ...]) -> jax.Array:
        x, kernel, grad = part
        return jax.vjp(lambda kernel: dense_conv(window, x, kernel), kernel)[1](grad)[0]

    by_kernels = jax.lax.map(gradient, (_split(x, parts), merge(kernel), _split(grad, parts)))
    return jax.linear_transpose(merge, kernel)(by_kernels)[0]


def _parts(groups: int, channels: int, wanted: int) -> int:
    """Returns how many dense convolutions the groups become: as few groups together as reach the wanted channels."""
    merged = next(
        merged
        for merged in range(1, groups + 1)
        if groups % merged == 0 and (merged * channels >= wanted * groups or merged == groups)
    )
    return groups // merged


def _merge_groups(merged: int, parts: int, kernel: jax.Array) -> jax.Array:
    """[k,l,c,parts merged d] -> [parts,k,l,merged c,merged d], zeros between different groups."""
    height, width, inputs, outputs = kernel.shape
    each = outputs // (parts * merged)
    kernel = kernel.reshape(height, width, inputs, parts, merged, each)
    same = np.eye(merged, dtype=kernel.dtype)
    kernel = jnp.einsum("hwcpmd,nm->phwncmd", kernel, same, precision="highest")
    return kernel.reshape(parts, height, width, merged * inputs, merged * each)


def _split(x: jax.Array, parts: int) -> jax.Array:
    """[B,H,W,C] -> [parts,B,H,W,C / parts]."""
    return jnp.moveaxis(x.reshape(*x.shape[:3], parts, -1), 3, 0)


def _join(x: jax.Array) -> jax.Array:
    """[parts,B,H,W,C / parts] -> [B,H,W,C]."""
    return jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], -1)
