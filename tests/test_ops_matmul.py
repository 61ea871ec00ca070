"""The matrix product and its gradients against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convnext_jax.ops.matmul import matmul

# Rows from which on a CPU takes another way, as an image and as a list.
MANY = ((4, 16, 16), (1100,))


@pytest.fixture(autouse=True)
def small_products_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.ops.matmul._MANY_MACS", 0)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(shape).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (), *MANY])
@pytest.mark.parametrize("channels", [(5, 6), (6, 5)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_plain_product(
    shape: tuple[int, ...], channels: tuple[int, int], dtype: str
) -> None:
    inputs, outputs = channels
    arrays = [draw(*size).astype(dtype) for size in ((*shape, inputs), channels, (*shape, outputs))]
    x, kernel, grad = (np.asarray(array, np.float64) for array in arrays)
    expected = (x @ kernel, grad @ kernel.T, x.reshape(-1, inputs).T @ grad.reshape(-1, outputs))
    found, backward = jax.vjp(matmul, *arrays[:2])
    # Relative to the largest value; autodiff's own kernel gradient, in jax 0.12, is off by twice that in bfloat16.
    tolerance = 1e-6 if dtype == "float32" else 2.0**-8
    for one, exact in zip((found, *backward(arrays[2])), expected, strict=True):
        assert one.dtype == dtype and one.shape == exact.shape
        np.testing.assert_allclose(np.asarray(one, np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize("shape", MANY)
def test_second_derivatives_are_those_of_the_plain_product(shape: tuple[int, ...]) -> None:
    def slopes(product, x: jax.Array, kernel: jax.Array) -> jax.Array:
        by_both = jax.grad(lambda x, kernel: jnp.sin(product(x, kernel)).sum(), (0, 1))(x, kernel)
        return sum(jnp.square(slope).sum() for slope in by_both)

    x, kernel = draw(*shape, 3), draw(3, 4)
    found, expected = (jax.grad(slopes, (1, 2))(product, x, kernel) for product in (matmul, jnp.matmul))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6 * np.abs(other).max())


@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
@pytest.mark.parametrize("shape", MANY)
def test_a_stack_of_products_is_no_grouped_convolution(shape: tuple[int, ...], axes: tuple[int | None, ...]) -> None:
    arrays = [
        draw(*(() if axis is None else (2,)), *size) for axis, size in zip(axes, ((*shape, 3), (3, 4)), strict=True)
    ]
    stack = jax.jit(jax.vmap(matmul, axes))
    np.testing.assert_allclose(stack(*arrays), jax.vmap(jnp.matmul, axes)(*arrays), rtol=0, atol=1e-5)
    assert "convolution" not in stack.lower(*arrays).as_text()


def test_on_a_cpu_products_of_many_rows_are_eigen_s() -> None:
    def program(rows: int) -> str:
        def both(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, ...]:
            y, backward = jax.vjp(matmul, x, kernel)
            return y, *backward(grad)

        arrays = draw(4, rows // 4, 16), draw(16, 32), draw(4, rows // 4, 32)
        return jax.jit(both).lower(*arrays).compile().as_text()

    few, many = program(512), program(1024)
    assert few.count(" dot(") == many.count(" dot(") == 3
    assert "__ynn_fusion" in few
    assert "__ynn_fusion" not in many


def test_a_small_product_is_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.ops.matmul._MANY_MACS", 1024 * 16 * 32)
    at, below = (jax.jit(matmul).lower(draw(1024, 16), draw(16, wide)).compile().as_text() for wide in (32, 31))
    assert " call(" in at
    assert " call(" not in below


def test_elsewhere_it_is_a_product() -> None:
    lowered = jax.jit(matmul).trace(draw(1024, 16), draw(16, 32)).lower(lowering_platforms=("cuda",)).as_text()
    assert "dot_general" in lowered
    assert "convolution" not in lowered


def test_a_sharded_batch_stays_where_it_is() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x = jax.device_put(draw(4, 16, 16, 3), NamedSharding(mesh, PartitionSpec("data")))
    kernel = jax.device_put(draw(3, 4), NamedSharding(mesh, PartitionSpec()))
    both = jax.grad(lambda x, kernel: jnp.sin(matmul(x, kernel)).sum(), (0, 1))
    program = jax.jit(both).lower(x, kernel).compile().as_text()
    assert "all-gather" not in program and "collective-permute" not in program
    assert program.count(" all-reduce(") == 1
