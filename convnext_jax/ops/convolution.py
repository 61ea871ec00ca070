"""Convolutions with any window, as matrix products over patches where that is faster.

The gradients of XLA's convolutions with few channels or with stride 2 are slow on a CPU, those of a matrix product are
not. On a TPU the convolution is the faster for patches that touch.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp  # noqa: F401  (the example)

from convnext_jax.ops.dense_convolution import Padding, Window, dense_conv, taken_apart, window_conv, xla_conv
from convnext_jax.ops.grouped_convolution import grouped_conv
from convnext_jax.ops.matmul import matmul

# A window is written out up to this many values: the three channels of an image for a 7x7 stem, but not those of a
# feature map, of which the backward pass would keep each pixel k^2 times.
_WINDOW_VALUES = 256

_is_plain = contextvars.ContextVar("_is_plain", default=False)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within the context `conv` is traced as a convolution, whatever its shape, for programs that others run."""
    token = _is_plain.set(True)
    try:
        yield
    finally:
        _is_plain.reset(token)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
    groups: int = 1,
) -> jax.Array:
    """Convolves a map with a kernel.

    >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> conv(image, jnp.ones((2, 2, 1, 1)), stride=2)[0, :, :, 0].tolist()
    [[10.0, 18.0], [42.0, 50.0]]

    Args:
      x: [B,H,W,C].
      kernel: [k,l,C / groups,D].
      stride: distance between windows, in pixels.
      padding: zeros around the map, in pixels.
      groups: parts that the channels are split into. Each part of the outputs sees the part of the inputs that has
        the same number.

    Returns:
      [B,H',W',D] with ``H' = (H + zeros above and below - k) // stride + 1``. Pixels on the right and at the bottom
      that fill no window are left out.

    Raises:
      ValueError: the window is larger than the map with its zeros.
    """
    height, width, inputs, _ = kernel.shape
    sides = [side + sum(zeros) for side, zeros in zip(x.shape[1:3], padding, strict=True)]
    if sides[0] < height or sides[1] < width:
        raise ValueError(f"a window of {height}x{width} pixels is larger than a map of {sides[0]}x{sides[1]}")
    if _is_plain.get():
        return xla_conv(Window(stride, padding), x, kernel, groups)
    unpadded = padding == ((0, 0), (0, 0))
    if groups == 1 and unpadded and height == width == stride:
        # By the model of a TPU's compiler its own convolution takes half of the cycles (benchmarks/notes.md).
        of_xla = functools.partial(xla_conv, Window(stride, padding))
        return jax.lax.platform_dependent(x, kernel, tpu=of_xla, default=_merge_patches)
    if groups == 1 and unpadded and height == width == 1:
        return matmul(taken_apart(lambda x: x[:, ::stride, ::stride], x, stride), kernel[0, 0])
    window = Window(stride, padding)
    if groups == 1 and height * width * inputs <= _WINDOW_VALUES:
        return window_conv(window, x, kernel)
    return dense_conv(window, x, kernel) if groups == 1 else grouped_conv(window, groups, x, kernel)


def _merge_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[B,H,W,C] and [p,p,C,D] -> [B,H//p,W//p,D], patches that touch and do not overlap."""
    size = kernel.shape[0]
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    x = x.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return matmul(x.reshape(batch, rows, columns, -1), kernel.reshape(-1, kernel.shape[-1]))
