"""The matrix product against autodiff's own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.matmul import matmul


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4, 5), (5,)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_plain_product(shape: tuple[int, ...], dtype: str) -> None:
    random = np.random.default_rng(0)
    x, kernel, grad = (jnp.asarray(random.standard_normal(size), dtype) for size in (shape, (5, 6), (*shape[:-1], 6)))
    expected, plain = jax.vjp(lambda x, kernel: x @ kernel, x, kernel)
    found, ours = jax.vjp(matmul, x, kernel)
    # Sums of up to 24 products near 10: bfloat16 keeps them to a tenth, however they are accumulated.
    tolerance = 1e-5 if dtype == "float32" else 0.1
    for one, other in zip((found, *ours(grad)), (expected, *plain(grad)), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), rtol=tolerance, atol=tolerance)
