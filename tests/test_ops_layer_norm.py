"""LayerNorm and its gradient against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.layer_norm import layer_norm


def draw(dtype: str) -> list[jax.Array]:
    """x, scale, bias and the gradient by the output; x far from mean 0 and variance 1."""
    random = np.random.default_rng(0)
    x = 5.0 + 3.0 * random.standard_normal((2, 3, 7))
    grad = random.standard_normal(x.shape)
    scale, bias = random.standard_normal((2, 7))
    return [jnp.asarray(x, dtype), jnp.asarray(scale), jnp.asarray(bias), jnp.asarray(grad, dtype)]


def reference(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


def differences(arrays: list[np.ndarray], grad: np.ndarray) -> list[np.ndarray]:
    """Gradients of ``(grad * reference(...)).sum()`` by central differences in float64."""
    slopes = []
    for index, array in enumerate(arrays):
        slope = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [other.copy() for other in arrays]
                moved[index][place] += step
                sides.append((grad * reference(*moved)).sum())
            slope[place] = (sides[0] - sides[1]) / 2e-5
        slopes.append(slope)
    return slopes


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2.0**-8)])
def test_values_and_gradients(dtype: str, tolerance: float) -> None:
    *inputs, grad = draw(dtype)
    y, pull = jax.vjp(layer_norm, *inputs)
    exact = [np.asarray(array, np.float64) for array in inputs]
    grad64 = np.asarray(grad, np.float64)
    expected = [reference(*exact), *differences(exact, grad64)]
    for found, right, dtype_of in zip((y, *pull(grad)), expected, (inputs[0], *inputs), strict=True):
        assert found.dtype == dtype_of.dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), right, atol=tolerance * np.abs(right).max())


def test_the_backward_pass_keeps_the_input_and_two_numbers_a_pixel() -> None:
    *inputs, _ = draw("float32")
    kept = jax.eval_shape(lambda *arrays: jax.vjp(layer_norm, *arrays)[1], *inputs)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(kept)) == [(2, 3, 1), (2, 3, 1), (2, 3, 7), (7,)]


def test_a_constant_pixel_has_no_slope_that_is_not_a_number() -> None:
    x, scale, bias = jnp.full((1, 4), 3.0), jnp.ones(4), jnp.zeros(4)
    slope = jax.grad(lambda x: layer_norm(x, scale, bias)[0, 0])(x)
    assert np.isfinite(slope).all()
