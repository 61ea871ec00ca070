"""A convolution whose kernel is not learned: it makes the patches of the training images uncorrelated."""

import jax
import numpy as np
from flax import nnx

from convnext_jax.layers.convolution import add_bias
from convnext_jax.layers.parameters import Initializer, Role, constant
from convnext_jax.ops.convolution import conv

EPSILON = 5e-4  # added to the variance of a component; that of Jordan 2024
_CHUNK = 100  # images whose patches are in memory at a time


class Whitening(nnx.Module):
    """Convolution with the principal components of patches and their negatives, each divided by its deviation.

    The kernel is a running statistic, not a parameter: no gradient reaches it. It is drawn at random until a training
    puts `whitening_kernel` of its images in its place, before the first step. The bias is learned.

    Args:
      init: draws the kernel.
      inputs: channels of the images.
      size: side of a patch, in pixels.

    Reference:
      Page, `How to Train Your ResNet 8 <https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/>`_, 2019;
      with negatives: Jordan, `94% on CIFAR-10 in 3.29 Seconds <https://arxiv.org/abs/2404.00498>`_, 2024.
    """

    def __init__(self, init: Initializer, inputs: int, size: int) -> None:
        outputs = 2 * size * size * inputs
        self.kernel = nnx.BatchStat(init.kernel((size, size, inputs, outputs), Role.STEM)[...])
        self.bias = constant(outputs, 0.0, Role.BIAS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,inputs] -> [B,H - size + 1,W - size + 1,2 size^2 inputs]."""
        kernel = jax.lax.stop_gradient(self.kernel[...]).astype(x.dtype)
        return add_bias(conv(x, kernel), self.bias)


def whitening_kernel(images: np.ndarray, size: int) -> np.ndarray:
    """Returns the kernel that makes patches uncorrelated.

    >>> whitening_kernel(np.random.default_rng(0).normal(0, 2, (8, 16, 16, 1)), 1).round(2)[0, 0, 0].tolist()
    [0.5, -0.5]

    Args:
      images: [N,H,W,C], normalized; some thousands are enough.
      size: k, side of a patch, in pixels.

    Returns:
      float32 [k,k,C,2 k^2 C]: the components in ascending order of their variance, then their negatives.
    """
    length = size * size * images.shape[-1]
    products, count = np.zeros((length, length)), 0
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(chunk, (size, size), (1, 2))
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, length)
        products += patches.T @ patches
        count += len(patches)
    variances, components = np.linalg.eigh(products / count)
    # A decomposition leaves the signs open. Weights without a symmetry settle them.
    components = components * np.sign(np.cos(np.arange(length)) @ components)
    whitening = components / np.sqrt(variances + EPSILON)
    return np.concatenate([whitening, -whitening], 1).reshape(size, size, images.shape[-1], -1).astype(np.float32)
