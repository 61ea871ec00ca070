"""Pooling against loops in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import images

from convnext_jax.layers.pooling import adaptive_average_pool, average_pool, global_average_pool, max_pool
from convnext_jax.ops.convolution import Padding

OPTIONS = [(2, 2, 0), (3, 2, 1), (3, 1, ((0, 1), (2, 1))), (3, 3, ((1, 0), (0, 2)))]


def windows(x: np.ndarray, size: int, stride: int, padding: int | Padding) -> np.ndarray:
    """[B,H',W',size,size,C], NaN where the map ends."""
    around = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    x = np.pad(x, ((0, 0), *around, (0, 0)), constant_values=np.nan)
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    return np.array(
        [
            [
                [image[r * stride : r * stride + size, c * stride : c * stride + size] for c in range(columns)]
                for r in range(rows)
            ]
            for image in x
        ]
    )


@pytest.mark.parametrize(("size", "stride", "padding"), OPTIONS)
def test_max_pool(size: int, stride: int, padding: int | Padding) -> None:
    # Below zero everywhere, so that padding that counted would be the largest.
    x = images(2, 7, 6, 3) - 10.0
    found = max_pool(jnp.asarray(x), size, stride=stride, padding=padding)
    np.testing.assert_array_equal(found, np.nanmax(windows(x, size, stride, padding), (3, 4)))


@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 3), (5, 3)])
@pytest.mark.parametrize("side", [(5, 8), (6, 7), (7, 9)])
def test_a_window_beyond_the_map_takes_what_no_other_does(size: int, stride: int, side: tuple[int, int]) -> None:
    x = images(2, *side, 3) - 10.0
    found = max_pool(jnp.asarray(x), size, stride=stride, partial=True)
    counts = [math.ceil((length - size) / stride) + 1 for length in side]
    expected = [
        [x[:, r * stride : r * stride + size, c * stride : c * stride + size].max((1, 2)) for c in range(counts[1])]
        for r in range(counts[0])
    ]
    np.testing.assert_array_equal(found, np.moveaxis(np.array(expected), 2, 0))


@pytest.mark.parametrize("side", [(4, 4), (8, 12), (7, 14), (3, 2), (1, 5)])
def test_adaptive_average_pool(side: tuple[int, int]) -> None:
    x, size = images(2, *side, 3), 4
    found = adaptive_average_pool(jnp.asarray(x), size)
    bounds = [[(math.floor(i * n / size), math.ceil((i + 1) * n / size)) for i in range(size)] for n in side]
    expected = [[x[:, top:bottom, left:right].mean((1, 2)) for left, right in bounds[1]] for top, bottom in bounds[0]]
    np.testing.assert_allclose(found, np.moveaxis(np.array(expected), 2, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "stride", "padding"), OPTIONS)
@pytest.mark.parametrize("count_padding", [True, False])
def test_average_pool(size: int, stride: int, padding: int | Padding, count_padding: bool) -> None:
    x = images(2, 7, 6, 3)
    found = average_pool(jnp.asarray(x), size, stride=stride, padding=padding, count_padding=count_padding)
    parts = windows(x.astype(np.float64), size, stride, padding)
    expected = np.nansum(parts, (3, 4)) / size**2 if count_padding else np.nanmean(parts, (3, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradients() -> None:
    x = jnp.asarray([[1.0, 2.0], [4.0, 3.0]]).reshape(1, 2, 2, 1)
    by_max = jax.grad(lambda x: max_pool(x, 2, stride=2).sum())(x)
    assert by_max.ravel().tolist() == [0.0, 0.0, 1.0, 0.0]
    by_mean = jax.grad(lambda x: average_pool(x, 2, stride=2).sum())(x)
    assert by_mean.ravel().tolist() == [0.25] * 4


def test_bfloat16_is_summed_in_float32() -> None:
    # In bfloat16 256 + 1 is 256.
    x = jnp.asarray([256.0, 1.0, 1.0, 2.0], jnp.bfloat16).reshape(1, 2, 2, 1)
    pooled, mean = average_pool(x, 2, stride=2), global_average_pool(x)
    assert (pooled.dtype, max_pool(x, 2, stride=2).dtype, mean.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    assert pooled.item() == mean.item() == 65.0


def test_global_average_pool_of_a_map_that_is_not_square() -> None:
    x = images(2, 3, 5, 4)
    np.testing.assert_allclose(global_average_pool(jnp.asarray(x)), x.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("side", [(6, 6), (7, 8), (9, 5)])
def test_the_gradient_of_windows_that_touch_is_that_of_xla(size: int, side: tuple[int, int]) -> None:
    """To the last bit, ties included: a third of the values are equal."""
    x = jnp.asarray(np.maximum(images(2, *side, 3), 0.5))
    grad = jnp.asarray(images(2, side[0] // size, side[1] // size, 3, seed=4))

    def of_xla(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, size, size, 1), "VALID")

    expected, pull_back = jax.vjp(of_xla, x)
    found, own = jax.vjp(lambda x: max_pool(x, size, stride=size), x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(own(grad)[0], pull_back(grad)[0])
