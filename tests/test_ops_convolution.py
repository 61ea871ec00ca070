"""The stem's and downsampling's convolutions, against XLA's own."""

import jax
import numpy as np
import pytest
from convnext_jax.ops.patches import conv_windows, merge_patches


def draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def convolution(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("side", [(8, 8), (9, 11), (4, 6)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_merge_patches_is_the_convolution_of_that_stride(patch: int, side: tuple[int, int]) -> None:
    x, kernel = draw((2, *side, 3), (patch, patch, 3, 5))
    expected = convolution(x, kernel, patch, 0)
    np.testing.assert_allclose(merge_patches(x, kernel), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [(8, 8), (9, 6), (3, 5), (1, 1)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [3, 40])
def test_conv_windows_is_the_convolution_of_that_stride(channels: int, stride: int, side: tuple[int, int]) -> None:
    x, kernel = draw((2, *side, channels), (3, 3, channels, 5))
    expected = convolution(x, kernel, stride, 1)
    windows = conv_windows(x, kernel, stride=stride, padding=1)
    np.testing.assert_allclose(windows, expected, rtol=1e-5, atol=1e-5)
