"""Linear layers and convolutions."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.ops.convolution import Padding, conv
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.ops.matmul import matmul, rows_of


def add_bias(x: jax.Array, bias: nnx.Param[jax.Array] | jax.Array | None) -> jax.Array:
    """Adds a bias over the last axis, in float32.

    In bfloat16 the gradient of the bias, a sum over all pixels, would have four times the error.

    Args:
      x: [..., C].
      bias: float32 [C], or None to add nothing.

    Returns:
      [..., C] in the dtype of x.
    """
    return x if bias is None else (x.astype(jnp.float32) + bias[...]).astype(x.dtype)


class Linear(nnx.Module):
    """``x @ kernel + bias`` over the last axis.

    Args:
      init: draws the kernel.
      inputs: size of the last axis.
      outputs: size that it becomes.
      bias: whether there is a bias.
      role: what the kernel is for.
    """

    def __init__(
        self, init: Initializer, inputs: int, outputs: int, *, bias: bool = True, role: Role = Role.LINEAR
    ) -> None:
        self.kernel = init.kernel((inputs, outputs), role)
        self.bias = constant(outputs, 0.0, Role.BIAS) if bias else None

    def __call__(self, x: jax.Array, *, scale: nnx.Param[jax.Array] | jax.Array | None = None) -> jax.Array:
        """[..., inputs] -> [..., outputs].

        With many rows the scale is multiplied into the kernel. Its gradient then follows from that of the kernel, and
        the outputs need not be kept for it. With few rows the kernel is the larger, and the outputs are multiplied.

        Args:
          x: [..., inputs].
          scale: float32 [outputs], that the outputs are multiplied by; None is 1.
        """
        if scale is None:
            return add_bias(matmul(x, self.kernel[...].astype(x.dtype)), self.bias)
        factor = scale[...]
        if rows_of(x) >= self.kernel.shape[0]:
            bias = None if self.bias is None else self.bias[...] * factor
            return add_bias(matmul(x, (self.kernel[...] * factor).astype(x.dtype)), bias)
        return (self(x).astype(jnp.float32) * factor).astype(x.dtype)


class Conv(nnx.Module):
    """Convolution with any window, stride, padding and number of groups.

    Args:
      init: draws the kernel.
      inputs: channels of the map.
      outputs: channels that they become.
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: zeros on each side, or ``((above, below), (left, right))``.
      groups: parts that the channels are split into.
      bias: whether there is a bias.
      role: what the kernel is for. By default that of a hidden convolution, grouped if there are groups.
      identity: whether output c starts as input c, where there is one; without groups. See `Initializer.kernel`.
    """

    def __init__(
        self,
        init: Initializer,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int | Padding = 0,
        groups: int = 1,
        bias: bool = True,
        role: Role | None = None,
        identity: bool = False,
    ) -> None:
        role = role or (Role.CONVOLUTION if groups == 1 else Role.GROUPED)
        self.kernel = init.kernel((size, size, inputs // groups, outputs), role, identity=identity)
        self.bias = constant(outputs, 0.0, Role.BIAS) if bias else None
        self.stride = stride
        self.padding = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs]; see `convnext_jax.ops.convolution.conv`."""
        kernel = self.kernel[...].astype(x.dtype)
        return add_bias(conv(x, kernel, stride=self.stride, padding=self.padding, groups=self.groups), self.bias)


class ConvTranspose(nnx.Module):
    """The transpose of a convolution: each pixel adds a window of values to a map that is larger by the stride.

    Args:
      init: draws the kernel, [size,size,outputs,inputs] as that of the convolution from outputs to inputs.
      inputs: channels of the map.
      outputs: channels that they become.
      size: side of the window, in pixels.
      stride: distance between windows, in pixels.
      padding: pixels that are cut off on each side.

    Reference:
      Zeiler et al., "Deconvolutional Networks", 2010; PyTorch's ``ConvTranspose2d``.
    """

    def __init__(
        self, init: Initializer, inputs: int, outputs: int, size: int, *, stride: int, padding: int = 0
    ) -> None:
        self.kernel = init.kernel((size, size, outputs, inputs), Role.CONVOLUTION)
        self.bias = constant(outputs, 0.0, Role.BIAS)
        self.stride = stride
        self.padding = padding

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H',W',outputs], H' = (H - 1) stride + size - 2 padding."""
        size, _, outputs, inputs = self.kernel.shape
        stride, cells = self.stride, -(-size // self.stride)
        kernel = jnp.pad(self.kernel[...], [(0, cells * stride - size)] * 2 + [(0, 0)] * 2).astype(x.dtype)
        windows = matmul(x, kernel.reshape(-1, inputs).T).reshape(*x.shape[:3], cells, stride, cells, stride, outputs)
        # A window covers cells of stride x stride pixels. A cell is the sum of its parts of all windows.
        rows = functools.reduce(jnp.add, [_shifted(windows[:, :, :, cell], cell, cells, 1) for cell in range(cells)])
        y = functools.reduce(jnp.add, [_shifted(rows[:, :, :, :, cell], cell, cells, 2) for cell in range(cells)])
        batch, down, across = y.shape[:3]  # [B,H + cells - 1,W + cells - 1,stride,stride,outputs]
        y = y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, down * stride, across * stride, outputs)
        height, width = ((side - 1) * stride + size - 2 * self.padding for side in x.shape[1:3])
        first = self.padding
        return add_bias(y[:, first : first + height, first : first + width], self.bias)


def _shifted(x: jax.Array, by: int, cells: int, axis: int) -> jax.Array:
    """Returns a map with zeros before and after an axis, ``cells - 1`` in all."""
    return jnp.pad(x, [(by, cells - 1 - by) if axis == number else (0, 0) for number in range(x.ndim)])


class DepthwiseConv(nnx.Module):
    """Convolution of each channel with its own kernel, zeros around the map.

    Args:
      init: draws the kernel.
      channels: of the map.
      size: side of the window, or its height and width, odd.
      stride: distance between windows, in pixels.
      bias: whether there is a bias.
    """

    def __init__(
        self, init: Initializer, channels: int, size: int | tuple[int, int], *, stride: int = 1, bias: bool = True
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        self.kernel = init.kernel((height, width, 1, channels), Role.DEPTHWISE)
        self.bias = constant(channels, 0.0, Role.BIAS) if bias else None
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,channels] -> [B,H',W',channels], H' = ceil(H / stride)."""
        kernel = self.kernel[...]
        height, width = kernel.shape[:2]
        if height != width:
            side = max(height, width)
            kernel = jnp.pad(kernel, [((side - size) // 2,) * 2 for size in (height, width)] + [(0, 0)] * 2)
        if self.stride == 1:
            return add_bias(depthwise_conv(x, kernel), self.bias)
        margin = kernel.shape[0] // 2
        padding, groups = ((margin, margin), (margin, margin)), x.shape[-1]
        y = conv(x, kernel.astype(x.dtype), stride=self.stride, padding=padding, groups=groups)
        return add_bias(y, self.bias)
