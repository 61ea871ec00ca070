"""The matrix product and its gradients against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.matmul import matmul
from convnext_jax.sharding import Sharding, make_mesh

# Rows, inputs and outputs. On a CPU products of many rows and of 10^8 multiply-adds take another way, and those of few
# rows with 2^16 weights.
SMALL = [((7,), 5, 6), ((2, 3, 4), 6, 5), ((), 5, 6), ((1100,), 5, 6), ((1,), 256, 256)]
LARGE = [((1100,), 300, 320), ((4, 16, 18), 320, 300), ((1100,), 1500, 61), ((2, 2, 3), 256, 260), ((64,), 260, 256)]


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(shape).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [*SMALL, *LARGE])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_plain_product(
    rows: tuple[int, ...], inputs: int, outputs: int, dtype: str
) -> None:
    arrays = [draw(*size).astype(dtype) for size in ((*rows, inputs), (inputs, outputs), (*rows, outputs))]
    x, kernel, grad = (np.asarray(array, np.float64).reshape(-1, array.shape[-1]) for array in arrays)
    expected = (x @ kernel, grad @ kernel.T, x.T @ grad)
    found, backward = jax.vjp(matmul, *arrays[:2])
    # Relative to the largest value; autodiff's own kernel gradient, in jax 0.12, is off by twice that in bfloat16.
    tolerance = 1e-6 if dtype == "float32" else 2.0**-8
    by_x, by_kernel = backward(arrays[2])
    assert (found.shape, by_x.shape, by_kernel.shape) == ((*rows, outputs), (*rows, inputs), (inputs, outputs))
    for one, exact in zip((found, by_x, by_kernel), expected, strict=True):
        assert one.dtype == dtype
        one = np.asarray(one, np.float64).reshape(exact.shape)
        np.testing.assert_allclose(one, exact, rtol=0, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [SMALL[1], LARGE[0], LARGE[3]])
def test_second_derivatives_are_those_of_the_plain_product(rows: tuple[int, ...], inputs: int, outputs: int) -> None:
    def slopes(product, x: jax.Array, kernel: jax.Array) -> jax.Array:
        by_both = jax.grad(lambda x, kernel: jnp.sin(product(x, kernel)).sum(), (0, 1))(x, kernel)
        return sum(jnp.square(slope).sum() for slope in by_both)

    # A sine of large values would magnify every rounding.
    x, kernel = draw(*rows, inputs), draw(inputs, outputs) / inputs
    found, expected = (jax.jit(jax.grad(slopes, (1, 2)), static_argnums=0)(f, x, kernel) for f in (matmul, jnp.matmul))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-6 * np.abs(other).max())


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [SMALL[1], *LARGE[:2], LARGE[3]])
def test_a_stack_of_products(rows: tuple[int, ...], inputs: int, outputs: int, axes: tuple[int | None, ...]) -> None:
    shapes = (*rows, inputs), (inputs, outputs)
    arrays = [draw(*(() if axis is None else (2,)), *shape) for axis, shape in zip(axes, shapes, strict=True)]
    found, expected = (jax.jit(jax.vmap(product, axes))(*arrays) for product in (matmul, jnp.matmul))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_sharded_batch_stays_where_it_is() -> None:
    sharding = Sharding(make_mesh(jax.devices()[:4]))
    x, kernel = draw(4, 18, 16, 300), draw(300, 320) / 300
    placed = jax.device_put(x, sharding.batch), jax.device_put(kernel, sharding.replicated)
    gradients = jax.jit(jax.grad(lambda x, kernel: jnp.sin(matmul(x, kernel)).sum(), (0, 1)))
    compiled = gradients.lower(*placed).compile()
    for found, expected, where in zip(
        compiled(*placed), gradients(x, kernel), (sharding.batch, sharding.replicated), strict=True
    ):
        assert found.sharding.is_equivalent_to(where, found.ndim)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    # A device that held the whole batch would need the memory of the four.
    alone = gradients.lower(x, kernel).compile().memory_analysis().temp_size_in_bytes
    assert compiled.memory_analysis().temp_size_in_bytes < alone / 2


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_have_a_program_for_it(platform: str) -> None:
    x, kernel = draw(1100, 300), draw(300, 320)
    gradients = jax.jit(jax.grad(lambda x, kernel: matmul(x, kernel).sum(), (0, 1)))
    lowered = gradients.trace(x, kernel).lower(lowering_platforms=(platform,))
    assert [out.shape for out in lowered.out_info] == [(1100, 300), (300, 320)]
