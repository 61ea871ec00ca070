"""The exact GELU and its gradient, against float64."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.gelu import cdf_by_tanh, gelu

POINTS = np.linspace(-9.0, 9.0, 721)
CDF = np.array([0.5 * math.erfc(-x / math.sqrt(2.0)) for x in POINTS])
SLOPE = CDF + POINTS * np.exp(-0.5 * POINTS**2) / math.sqrt(2.0 * math.pi)


def test_values_are_exact_and_not_the_tanh_form() -> None:
    x = jnp.asarray(POINTS, jnp.float32)
    np.testing.assert_allclose(gelu(x), POINTS * CDF, atol=1e-6, rtol=1e-6)
    assert np.abs(jax.nn.gelu(x, approximate=True) - POINTS * CDF).max() > 1e-4


def test_gradient() -> None:
    x = jnp.asarray(POINTS, jnp.float32)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), SLOPE, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("extreme", [-1e30, -np.inf, 1e30])
def test_far_values_do_not_become_nan(extreme: float) -> None:
    value, slope = jax.value_and_grad(gelu)(jnp.float32(extreme))
    if math.isfinite(extreme):
        assert value == (extreme if extreme > 0 else 0.0)
        assert slope == (1.0 if extreme > 0 else 0.0)
    else:
        assert np.isnan(value)  # -inf * 0, as in PyTorch: the non-finite loss must show


def test_bfloat16_is_rounded_once() -> None:
    x = jnp.asarray(POINTS, jnp.bfloat16)
    assert gelu(x).dtype == jnp.bfloat16
    exact = gelu(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(gelu(x).astype(np.float32), exact.astype(np.float32))


def test_autodiff_is_given_the_input_alone() -> None:
    kept = jax.eval_shape(lambda x: jax.vjp(gelu, x)[1], jnp.ones((4, 8)))
    assert [leaf.shape for leaf in jax.tree.leaves(kept)] == [(4, 8)]


def test_the_compiled_backward_pass_keeps_nothing_besides() -> None:
    """XLA would keep the erf of the forward pass, an array as wide as a block's widest."""
    x = jnp.ones((128, 32))

    def memory(function: Callable[[jax.Array], jax.Array]) -> int:
        loss = jax.value_and_grad(lambda x: jnp.square(function(x)).sum())
        return jax.jit(loss).lower(x).compile().memory_analysis().temp_size_in_bytes

    assert memory(gelu) < x.nbytes <= memory(lambda x: 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5))))


def test_the_form_for_a_tpu_is_within_bfloat16_s_rounding() -> None:
    x = jnp.asarray(POINTS, jnp.float32)
    np.testing.assert_allclose(cdf_by_tanh(x), CDF, atol=2e-6)
    assert cdf_by_tanh(jnp.array([-1e30, 1e30, np.inf])).tolist() == [0.0, 1.0, 1.0]
    assert np.isnan(cdf_by_tanh(jnp.float32(np.nan)))


@pytest.mark.parametrize(("dtype", "has_erf"), [(jnp.bfloat16, False), (jnp.float32, True)])
def test_a_tpu_has_no_erf_in_bfloat16(dtype: jnp.dtype, has_erf: bool) -> None:
    lowered = jax.jit(gelu).trace(jnp.zeros(8, dtype)).lower(lowering_platforms=("tpu",)).as_text()
    assert ("erf" in lowered) == has_erf
