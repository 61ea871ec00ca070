"""Depthwise convolution: every algorithm, forward and gradients, against a float64 sum written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.depthwise import IMPLEMENTATIONS, depthwise_conv
from convnext_jax.sharding import Sharding, make_mesh

ALGORITHMS = IMPLEMENTATIONS[1:]
ON_CPU = ("direct", "shift", "banded")
# (algorithm, side of the kernel, side of the map). A banded matrix of a large map takes much memory. "auto" is on both
# sides of its rules, by the map and by its gradient.
CASES = [
    *(("conv", 7, side) for side in (1, 2, 8, 33)),
    *(("shift", 7, side) for side in (1, 2, 8, 14, 33)),
    *(("banded", 7, side) for side in (1, 2, 5, 6, 7, 16)),
    *(("strip", 7, side) for side in (1, 2, 8, 16, 17, 33)),
    *(("strip", 15, side) for side in (4, 40)),
    *(("auto", 3, side) for side in (3, 4, 5)),
    *(("auto", 5, side) for side in (15, 16)),
    *(("auto", 17, side) for side in (16, 17)),
    *((algorithm, size, side) for algorithm in ("conv", "banded") for size, side in ((1, 5), (3, 16), (31, 4))),
    *(("shift", size, side) for size, side in ((1, 5), (3, 16), (5, 8), (9, 4), (11, 6), (31, 20))),
    *(("direct", size, side) for size, side in ((1, 5), (3, 16), (5, 8), (7, 14), (11, 6))),
]


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


@functools.partial(jax.jit, static_argnums=0)
def run(algorithm: str, x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, ...]:
    """The output, and the gradients by the map and by the kernel."""
    y, pull = jax.vjp(functools.partial(depthwise_conv, implementation=algorithm), x, kernel)
    return y, *pull(grad)


def check(algorithm: str, size: int, shape: tuple[int, ...]) -> None:
    x, kernel, grad = draw(shape, size)
    y, by_x, by_kernel = run(algorithm, x, kernel, grad)
    expected_by_x, expected_by_kernel = reference_gradients(x, kernel, grad)
    # A rounding error grows with the root of the number of terms.
    atol = 3e-6 * size
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=atol)
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-5, atol=atol)
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=1e-5 + 1e-6 * np.sqrt(np.prod(shape[:3])))


@pytest.mark.parametrize(("algorithm", "size", "side"), CASES)
def test_square_maps(algorithm: str, size: int, side: int) -> None:
    check(algorithm, size, (1, side, side, 3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("channels", [5, 16])
def test_maps_that_are_not_square_and_channels_in_groups(algorithm: str, channels: int) -> None:
    check(algorithm, 5, (3, 3, 19, channels))


# Not "strip": a TPU adds up its products in float32, and a CPU, depending on the version of XLA, does not.
@pytest.mark.parametrize("algorithm", ["conv", *ON_CPU])
def test_bfloat16_maps_are_summed_in_float32(algorithm: str) -> None:
    x, kernel, grad = draw((3, 5, 4, 3))
    x, grad = x.astype(jnp.bfloat16), grad.astype(jnp.bfloat16)
    y, by_x, by_kernel = run(algorithm, x, kernel, grad)
    assert (y.dtype, by_x.dtype, by_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    if algorithm == "conv":  # a library takes maps and kernels of one dtype
        kernel = np.asarray(kernel.astype(jnp.bfloat16), np.float32)
    expected_by_x, expected_by_kernel = reference_gradients(x.astype(np.float32), kernel, grad.astype(np.float32))
    # Half a unit in the last of bfloat16's 8 bits: only the result was rounded.
    np.testing.assert_allclose(y.astype(np.float32), reference(x.astype(np.float32), kernel), rtol=2.0**-8, atol=1e-5)
    np.testing.assert_allclose(by_x.astype(np.float32), expected_by_x, rtol=2.0**-8, atol=1e-5)
    rounding = 2.0**-8 if algorithm == "conv" else 1e-5
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=rounding, atol=5e-5)


def test_a_kernel_in_hwio_layout_is_the_same_kernel() -> None:
    x, kernel, _ = draw((2, 5, 5, 3))
    y = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)[:, :, None])
    np.testing.assert_array_equal(y, depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, 0), (None, 0, None)])
def test_vmap_is_a_loop(algorithm: str, axes: tuple[int | None, ...]) -> None:
    x, kernel, grad = (np.stack([a, 2 * a, a - 1]) for a in draw((2, 2, 3, 2), 3))
    arrays = [a if axis == 0 else a[1] for a, axis in zip((x, kernel, grad), axes, strict=True)]
    together = jax.vmap(functools.partial(run, algorithm), axes)(*arrays)
    for index in range(3):
        one = [a[index] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)]
        expected = reference(*one[:2]), *reference_gradients(*one)
        for ours, theirs in zip(together, expected, strict=True):
            np.testing.assert_allclose(ours[index], theirs, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scan_over_blocks_that_are_computed_again(algorithm: str) -> None:
    x, kernel, _ = draw((2, 3, 3, 2), 3)
    kernels = np.stack([kernel, kernel / 2])

    @jax.checkpoint
    def block(x, kernel):
        return jnp.tanh(depthwise_conv(x, kernel, implementation=algorithm)), None

    def scanned(x, kernels):
        return jax.lax.scan(block, x, kernels)[0].sum()

    def written_out(x, kernels):
        for kernel in kernels:
            padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = jnp.tanh(sum(padded[:, i : i + 3, j : j + 3] * kernel[i, j] for i in range(3) for j in range(3)))
        return x.sum()

    ours = jax.jit(jax.grad(scanned, (0, 1)))(x, kernels)
    expected = jax.jit(jax.grad(written_out, (0, 1)))(x, kernels)
    for ours_part, expected_part in zip(ours, expected, strict=True):
        np.testing.assert_allclose(ours_part, expected_part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ON_CPU)
def test_a_batch_on_two_devices_stays_there(algorithm: str) -> None:
    sharding = Sharding(make_mesh(jax.devices()[:2]))
    x, kernel, grad = draw((16, 5, 5, 8), 3)
    placed = jax.device_put((x, kernel, grad), (sharding.batch, sharding.replicated, sharding.batch))
    compiled = run.lower(algorithm, *placed).compile()
    y, by_x, by_kernel = compiled(*placed)
    assert y.sharding.is_equivalent_to(sharding.batch, 4) and by_x.sharding.is_equivalent_to(sharding.batch, 4)
    assert by_kernel.sharding.is_equivalent_to(sharding.replicated, 3)
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=2e-5)
    expected_by_x, expected_by_kernel = reference_gradients(x, kernel, grad)
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=5e-5)
    # A device that gathered the batch would do the work of both.
    alone = run.lower(algorithm, x, kernel, grad).compile()
    assert compiled.cost_analysis()["flops"] < 0.75 * alone.cost_analysis()["flops"]


@pytest.mark.parametrize("implementation", ["auto", "conv", "banded"])
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


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("implementation", ["auto", "shift"])
def test_other_platforms_have_a_program_for_it(implementation: str, platform: str) -> None:
    arrays = draw((2, 4, 4, 8))
    lowered = run.trace(implementation, *arrays).lower(lowering_platforms=(platform,))
    assert [out.shape for out in lowered.out_info] == [(2, 4, 4, 8), (2, 4, 4, 8), (7, 7, 8)]


def test_a_gpu_does_without_a_convolution_in_the_kernel_gradient_of_the_smallest_maps() -> None:
    def convolutions(side: int, platform: str) -> int:
        lowered = run.trace("auto", *draw((2, side, side, 8))).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions(4, "cuda") < convolutions(8, "cuda") == convolutions(4, "tpu")


@pytest.mark.parametrize("shape", [(4, 4, 3), (7, 5, 3), (7, 7, 4), (7, 7, 3, 1)])
def test_a_kernel_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"kernel \[k,k,1,3\] or \[k,k,3\] with odd k, got"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="'shifted' is none of auto, conv, direct, shift, banded"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros((7, 7, 3)), implementation="shifted")


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "products"),
    [
        ("bfloat16", (16, 8, 8, 4), 7, True),
        ("bfloat16", (64, 14, 14, 384), 7, True),
        ("bfloat16", (16, 32, 32, 96), 7, True),
        ("float32", (16, 8, 8, 4), 7, False),
        ("bfloat16", (16, 8, 8, 4), 3, False),
        ("bfloat16", (8, 8, 8, 4), 7, False),  # matrices for so few images
        ("bfloat16", (16, 14, 14, 384), 7, False),  # more, for the larger map
        ("bfloat16", (64, 14, 14, 1024), 7, False),  # larger than the fast memory
    ],
)
def test_a_tpu_gets_products_where_they_are_faster(
    dtype: str, shape: tuple[int, ...], size: int, products: bool
) -> None:
    arrays = (jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((size, size, shape[-1]), jnp.float32))
    lowered = jax.jit(depthwise_conv).trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert ("dot_general" in lowered) == products
    # Several strips of a map are a convolution over them.
    assert ("convolution" in lowered) == (not products or shape[1] == 32)
