"""The Haar transform against values of PyWavelets, and against what it must keep."""

import jax.numpy as jnp
import numpy as np
from numpy_layers import images

from convnext_jax.layers.wavelet import haar_transform


def test_values_are_those_of_pywavelets() -> None:
    x = jnp.array([[1.0, 5.0, 2.0, 0.0], [7.0, -3.0, 4.0, 6.0]]).reshape(1, 2, 4, 1)
    low, details = haar_transform(x)
    # pywt.dwt2(x, "haar"), version 1.9
    np.testing.assert_allclose(low[0, :, :, 0], [[5.0, 6.0]], atol=1e-6)
    np.testing.assert_allclose(details[0, 0, :, 0].T, [[1.0, -4.0], [3.0, 0.0], [-7.0, 2.0]], atol=1e-6)


def test_each_channel_keeps_its_sum_of_squares() -> None:
    x = images(2, 6, 8, 3)
    low, details = haar_transform(jnp.asarray(x))
    assert low.shape == (2, 3, 4, 3) and details.shape == (2, 3, 4, 3, 3)
    kept = (np.float64(low) ** 2).sum((1, 2)) + (np.float64(details) ** 2).sum((1, 2, 4))
    np.testing.assert_allclose(kept, (x.astype(np.float64) ** 2).sum((1, 2)), rtol=1e-5)


def test_the_map_can_be_put_together_again() -> None:
    x = images(1, 4, 6, 2)
    low, details = (np.float64(array) for array in haar_transform(jnp.asarray(x)))
    vertical, horizontal, diagonal = np.moveaxis(details, -1, 0)
    for row, column in np.ndindex(2, 2):
        down, across = (-1) ** row, (-1) ** column
        pixels = (low + down * vertical + across * horizontal + down * across * diagonal) / 2
        np.testing.assert_allclose(pixels, x[:, row::2, column::2], atol=1e-6)
