"""The matrix product and its gradients against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.matmul import matmul


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5), (5,)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_plain_product(shape: tuple[int, ...], dtype: str) -> None:
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(random.standard_normal(size), dtype) for size in (shape, (5, 6), (*shape[:-1], 6))]
    x, kernel, grad = (np.asarray(array, np.float64) for array in arrays)
    expected = (x @ kernel, grad @ kernel.T, x.reshape(-1, 5).T @ grad.reshape(-1, 6))
    found, backward = jax.vjp(matmul, *arrays[:2])
    # Relative to the largest value; autodiff's own kernel gradient, in jax 0.12, is off by twice that in bfloat16.
    tolerance = 1e-6 if dtype == "float32" else 2.0**-8
    for one, exact in zip((found, *backward(arrays[2])), expected, strict=True):
        assert one.dtype == dtype and one.shape == exact.shape
        np.testing.assert_allclose(np.asarray(one, np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max())
