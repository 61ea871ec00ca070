"""Depthwise convolution: every implementation, forward and gradient, against a float64 sum written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.depthwise import depthwise_conv

IMPLEMENTATIONS = ("conv", "shift", "banded")
CPU = ("shift", "banded")
# Even, odd, smaller than the kernel, not square, and wider than one window of the kernel's gradient.
SHAPES = ((2, 1, 1, 5), (3, 2, 2, 4), (2, 4, 4, 3), (1, 3, 19, 2), (2, 9, 8, 4))


def reference(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    p = size // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (p, p), (p, p), (0, 0)))
    y = np.zeros(x.shape)
    for i in range(size):
        for j in range(size):
            y += padded[:, i : i + height, j : j + width] * kernel[i, j].astype(np.float64)
    return y


def reference_gradients(x: np.ndarray, kernel: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size, (height, width) = kernel.shape[0], x.shape[1:3]
    p = size // 2
    padded = np.pad(x.astype(np.float64), ((0, 0), (p, p), (p, p), (0, 0)))
    by_padded, by_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for i in range(size):
        for j in range(size):
            by_padded[:, i : i + height, j : j + width] += grad * kernel[i, j].astype(np.float64)
            by_kernel[i, j] = (padded[:, i : i + height, j : j + width] * grad).sum((0, 1, 2))
    return by_padded[:, p : p + height, p : p + width], by_kernel


def draw(shape: tuple[int, ...], size: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = (shape, (size, size, shape[-1]), shape)
    x, kernel, grad = (random.standard_normal(s).astype(np.float32) for s in shapes)
    return x, kernel, grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_forward_and_gradients_are_those_of_the_written_out_sum(implementation: str, shape: tuple[int, ...]) -> None:
    x, kernel, grad = draw(shape)

    def run(x, kernel, grad):
        y, pull = jax.vjp(lambda *a: depthwise_conv(*a, implementation=implementation), x, kernel)
        return y, *pull(grad)

    y, by_x, by_kernel = jax.jit(run)(x, kernel, grad)
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=2e-5)
    expected_by_x, expected_by_kernel = reference_gradients(x, kernel, grad)
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [1, 5])
def test_other_odd_kernels(implementation: str, size: int) -> None:
    x, kernel, _ = draw((2, 6, 6, 3), size)
    y = depthwise_conv(x, kernel, implementation=implementation)
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=1e-5)


def test_a_kernel_in_hwio_layout_is_the_same_kernel() -> None:
    x, kernel, _ = draw((2, 5, 5, 3))
    y = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)[:, :, None])
    np.testing.assert_array_equal(y, depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)))


@pytest.mark.parametrize("implementation", CPU)
def test_bfloat16_maps_are_summed_in_float32(implementation: str) -> None:
    x, kernel, grad = draw((4, 9, 9, 3))
    x, grad = x.astype(jnp.bfloat16), grad.astype(jnp.bfloat16)
    y, pull = jax.vjp(lambda *a: depthwise_conv(*a, implementation=implementation), x, kernel)
    by_x, by_kernel = pull(grad)
    assert (y.dtype, by_x.dtype, by_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    expected = reference(x.astype(np.float32), kernel)
    # Half a unit in the last of bfloat16's 8 bits: only the result was rounded.
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=2.0**-8, atol=1e-5)
    _, expected_by_kernel = reference_gradients(x.astype(np.float32), kernel, grad.astype(np.float32))
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("shape", [(3, 2, 4, 4, 2), (2, 1, 9, 6, 3)])
def test_vmap_over_maps_and_kernels(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal(shape).astype(np.float32)
    kernels = random.standard_normal((shape[0], 7, 7, shape[-1])).astype(np.float32)

    def energy(x, kernel):
        return (depthwise_conv(x, kernel) ** 2).sum()

    together = jax.jit(jax.vmap(jax.grad(energy, argnums=1)))(x, kernels)
    for index in range(shape[0]):
        y = reference(x[index], kernels[index])
        expected = reference_gradients(x[index], kernels[index], 2 * y)[1]
        np.testing.assert_allclose(together[index], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_second_derivatives_are_those_of_plain_jax(implementation: str) -> None:
    x, kernel, _ = draw((1, 3, 4, 2), 3)

    def energy(convolve):
        return lambda x, kernel: (jnp.sin(convolve(x, kernel)) * x).sum()

    def plain(x, kernel):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(padded[:, i : i + 3, j : j + 4] * kernel[i, j] for i in range(3) for j in range(3))

    ours = energy(functools.partial(depthwise_conv, implementation=implementation))
    hessian = jax.jit(jax.jacrev(jax.grad(ours, (0, 1)), (0, 1)))(x, kernel)
    expected = jax.jit(jax.hessian(energy(plain), (0, 1)))(x, kernel)
    for ours_part, expected_part in zip(jax.tree.leaves(hessian), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours_part, expected_part, rtol=1e-4, atol=1e-4)


def test_forward_mode_is_refused() -> None:
    x, kernel, _ = draw((1, 3, 4, 2), 3)
    with pytest.raises(TypeError, match=r"forward-mode autodiff \(jvp\) to a custom_vjp function"):
        jax.jvp(depthwise_conv, (x, kernel), (x, kernel))


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 8, 8, 3)])
def test_a_program_for_the_cpu_contains_no_grouped_convolution(shape: tuple[int, ...]) -> None:
    x, kernel, _ = draw(shape)

    def loss(implementation: str):
        return jax.jit(jax.grad(lambda *a: depthwise_conv(*a, implementation=implementation).sum(), (0, 1)))

    assert "convolution" in loss("conv").lower(x, kernel).as_text()
    compiled = loss("auto").lower(x, kernel).compile().as_text()
    assert " convolution(" not in compiled
    assert " conditional(" not in compiled


def test_a_program_for_an_accelerator_leaves_the_convolution_to_its_library() -> None:
    x, kernel, _ = draw((2, 4, 4, 3))
    traced = jax.jit(depthwise_conv).trace(x, kernel)
    assert "convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("shape", [(4, 4, 3), (7, 5, 3), (7, 7, 4), (7, 7, 3, 1)])
def test_a_kernel_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"kernel \[k,k,1,3\] or \[k,k,3\] with odd k, got"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


@pytest.mark.parametrize(("shape", "chosen"), [((2, 6, 6, 3), "banded"), ((2, 4, 10, 3), "shift")])
def test_auto_chooses_by_the_number_of_pixels(shape: tuple[int, ...], chosen: str) -> None:
    x, kernel, _ = draw(shape)
    results = {name: np.asarray(depthwise_conv(x, kernel, implementation=name)) for name in ("auto", *CPU)}
    assert not np.array_equal(results["shift"], results["banded"])
    np.testing.assert_array_equal(results["auto"], results[chosen])


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="'shifted' is none of auto, conv, shift, banded"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros((7, 7, 3)), implementation="shifted")
