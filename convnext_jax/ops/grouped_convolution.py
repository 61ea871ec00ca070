"""Convolutions in groups, fast on a CPU. Other platforms get XLA's.

XLA's CPU compiler (jax 0.10 to 0.12) has plain loops for them, and slower ones for their gradients. Instead, several
small groups are made one dense convolution with zeros in its kernel: it computes more, at the speed of matrix products.
A depthwise convolution with a stride is this project's depthwise convolution, of which the stride leaves pixels out.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.ops.dense_convolution import Window, dense_conv, xla_conv
from convnext_jax.ops.depthwise import depthwise_conv

_CHANNELS = 64  # groups are made one up to about as many channels


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
    on_cpu = _depthwise if _is_depthwise(window, groups, x, kernel) else _merged
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

    of_depthwise = functools.partial(gradients_of, functools.partial(_depthwise, window, groups))
    of_merged = functools.partial(_merged_gradients, window, groups)
    return jax.lax.platform_dependent(
        x,
        kernel,
        grad,
        cpu=of_depthwise if _is_depthwise(window, groups, x, kernel) else of_merged,
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


def _merged(window: Window, groups: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    parts = _parts(groups, x.shape[-1])
    kernels = _merge_groups(groups // parts, parts, kernel)
    # In turn, so that one is compiled for all of them.
    return _join(jax.lax.map(lambda part: dense_conv(window, *part), (_split(x, parts), kernels)))


def _merged_gradients(
    window: Window, groups: int, x: jax.Array, kernel: jax.Array, grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    parts = _parts(groups, x.shape[-1])
    merge = functools.partial(_merge_groups, groups // parts, parts)

    def gradients(part: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(functools.partial(dense_conv, window), *part[:2])[1](part[2])

    by_parts, by_kernels = jax.lax.map(gradients, (_split(x, parts), merge(kernel), _split(grad, parts)))
    return _join(by_parts), jax.linear_transpose(merge, kernel)(by_kernels)[0]


def _parts(groups: int, channels: int) -> int:
    """Returns how many dense convolutions the groups become: as few groups together as reach the wanted channels."""
    merged = next(
        merged
        for merged in range(1, groups + 1)
        if groups % merged == 0 and (merged * channels >= _CHANNELS * groups or merged == groups)
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
