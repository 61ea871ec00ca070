"""Depthwise convolution: every algorithm, forward and gradients, against a float64 sum written out."""

import contextlib
import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from convnext_jax.ops.depthwise_table import read_table
from jax.sharding import NamedSharding, PartitionSpec

from convnext_jax.ops import depthwise, depthwise_conv, depthwise_pallas

ALGORITHMS = depthwise.IMPLEMENTATIONS[1:]
CPU = ("shift", "banded")
# Every map of the table, and every kernel of it at one of its maps; past 16x16 a banded matrix takes much memory, and
# 31x31 taps written out take long to compile. In the interpreter, a map for each way of cutting it into tiles.
MAPS = sorted({row.height for device in read_table() for row in device.rows})
KERNELS = ((1, 5), (3, 16), (5, 8), (9, 4), (11, 8), (31, 4))
CASES = [
    *(("conv", 7, side) for side in MAPS),
    *(("shift", 7, side) for side in MAPS),
    *(("banded", 7, side) for side in MAPS if side <= 16),
    *(("pallas", 7, side) for side in MAPS if side in (1, 2, 4, 8, 14, 56)),
    *((algorithm, size, side) for algorithm in ("conv", "banded") for size, side in KERNELS),
    *(("shift", size, side) for size, side in KERNELS if size < 31),
    *(("pallas", size, side) for size, side in KERNELS if size in (1, 9)),
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


def vjp(algorithm: str, x, kernel, grad) -> list[np.ndarray]:
    """y and the gradients by x and by the kernel."""

    def run(x, kernel, grad):
        y, pull = jax.vjp(functools.partial(depthwise_conv, implementation=algorithm), x, kernel)
        return y, *pull(grad)

    return jax.jit(run)(x, kernel, grad)


@pytest.mark.parametrize(("algorithm", "size", "side"), CASES)
def test_square_maps(algorithm: str, size: int, side: int):
    check(algorithm, size, (1, side, side, 3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_map_that_is_not_square_and_wider_than_a_window(algorithm: str):
    check(algorithm, 5, (3, 3, 19, 5))


def test_a_gpu_program_that_walks_over_several_strips(monkeypatch):
    # Six strips, of four in a program, the last ones past the end of the batch.
    monkeypatch.setattr(depthwise_pallas, "_STRIPS", 4)
    monkeypatch.setattr(depthwise_pallas, "_PROGRAMS", 1)
    check("pallas", 3, (9, 9, 6, 2))


def check(algorithm: str, size: int, shape: tuple[int, ...]) -> None:
    x, kernel, grad = draw(shape, size)
    y, by_x, by_kernel = vjp(algorithm, x, kernel, grad)
    expected_by_x, expected_by_kernel = reference_gradients(x, kernel, grad)
    # An error of rounding grows with the root of the number of terms.
    atol = 3e-6 * size
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=atol)
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-5, atol=atol)
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=1e-5 + 1e-6 * np.sqrt(np.prod(shape[:3])))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bfloat16_maps_are_summed_in_float32(algorithm: str):
    x, kernel, grad = draw((3, 5, 4, 3))
    x, grad = x.astype(jnp.bfloat16), grad.astype(jnp.bfloat16)
    y, by_x, by_kernel = vjp(algorithm, x, kernel, grad)
    assert (y.dtype, by_x.dtype, by_kernel.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    if algorithm == "conv":  # a library takes maps and kernels of one dtype
        kernel = np.asarray(kernel.astype(jnp.bfloat16), np.float32)
    expected_by_x, expected_by_kernel = reference_gradients(x.astype(np.float32), kernel, grad.astype(np.float32))
    # Half a unit in the last of bfloat16's 8 bits: only the result was rounded.
    np.testing.assert_allclose(y.astype(np.float32), reference(x.astype(np.float32), kernel), rtol=2.0**-8, atol=1e-5)
    np.testing.assert_allclose(by_x.astype(np.float32), expected_by_x, rtol=2.0**-8, atol=1e-5)
    rounding = 2.0**-8 if algorithm == "conv" else 1e-5
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=rounding, atol=5e-5)


def test_a_kernel_in_hwio_layout_is_the_same_kernel():
    x, kernel, _ = draw((2, 5, 5, 3))
    y = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)[:, :, None])
    np.testing.assert_array_equal(y, depthwise_conv(jnp.asarray(x), jnp.asarray(kernel)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, 0), (None, 0, None)])
def test_vmap_is_a_loop(algorithm: str, axes: tuple[int | None, ...]):
    x, kernel, grad = (np.stack([a, 2 * a, a - 1]) for a in draw((2, 2, 3, 2), 3))
    arrays = [a if axis == 0 else a[1] for a, axis in zip((x, kernel, grad), axes, strict=True)]
    together = jax.vmap(functools.partial(vjp, algorithm), axes)(*arrays)
    for index in range(3):
        one = [a[index] if axis == 0 else a for a, axis in zip(arrays, axes, strict=True)]
        expected = reference(*one[:2]), *reference_gradients(*one)
        for ours, theirs in zip(together, expected, strict=True):
            np.testing.assert_allclose(ours[index], theirs, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scan_over_blocks_that_are_computed_again(algorithm: str):
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


@pytest.mark.parametrize("algorithm", CPU + ("pallas",))
def test_a_batch_on_two_devices_stays_there(algorithm: str):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel, grad = draw((4, 4, 4, 3), 3)
    split = NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.device_put((x, kernel, grad), (split, NamedSharding(mesh, PartitionSpec()), split))

    def run(x, kernel, grad):
        y, pull = jax.vjp(functools.partial(depthwise_conv, implementation=algorithm), x, kernel)
        return y, *pull(grad)

    compiled = jax.jit(run).lower(*placed).compile()
    y, by_x, by_kernel = compiled(*placed)
    assert y.sharding.is_equivalent_to(split, 4) and by_x.sharding.is_equivalent_to(split, 4)
    # The kernel's gradient is summed over the devices; nothing else passes between them.
    collectives = re.findall(r" (all-\w+|collective-\w+|reduce-scatter)\(", compiled.as_text())
    assert collectives == ["all-reduce"]
    np.testing.assert_allclose(y, reference(x, kernel), rtol=1e-5, atol=2e-5)
    expected_by_x, expected_by_kernel = reference_gradients(x, kernel, grad)
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(by_kernel, expected_by_kernel, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("implementation", ("auto", "conv", "shift", "banded"))
def test_second_derivatives_are_those_of_plain_jax(implementation: str):
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


def test_forward_mode_is_refused():
    x, kernel, _ = draw((1, 3, 4, 2), 3)
    with pytest.raises(TypeError, match=r"forward-mode autodiff \(jvp\) to a custom_vjp function"):
        jax.jvp(depthwise_conv, (x, kernel), (x, kernel))


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 8, 8, 3)])
def test_a_program_for_the_cpu_contains_no_grouped_convolution(shape: tuple[int, ...]):
    x, kernel, _ = draw(shape)

    def loss(implementation: str):
        return jax.jit(jax.grad(lambda *a: depthwise_conv(*a, implementation=implementation).sum(), (0, 1)))

    assert "convolution" in loss("conv").lower(x, kernel).as_text()
    compiled = loss("auto").lower(x, kernel).compile().as_text()
    assert " convolution(" not in compiled
    assert " conditional(" not in compiled


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_programs_for_nvidia_gpus_lower_without_one(dtype: str):
    x, kernel, _ = draw((2, 14, 14, 40))
    x = jnp.asarray(x, dtype)

    def run(x, kernel):
        y, pull = jax.vjp(functools.partial(depthwise_conv, implementation="pallas"), x, kernel)
        return y, pull(y)

    with contextlib.ExitStack() as stack:
        if jax.__version_info__ >= (0, 11):  # it asks which GPU
            gpu = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu")
            mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
            stack.enter_context(jax.sharding.use_abstract_mesh(mesh))
        text = jax.jit(run).trace(x, kernel).lower(lowering_platforms=("cuda",)).as_text()
    # The convolution, and its two gradients.
    assert text.count("stablehlo.custom_call @__gpu$xla.gpu.triton") == 3


def test_pallas_is_imported_by_those_who_use_it_alone():
    script = "import sys, convnext_jax.ops; print(*(name for name in sys.modules if 'pallas' in name))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_program_for_an_accelerator_leaves_the_convolution_to_its_library():
    x, kernel, _ = draw((2, 4, 4, 3))
    traced = jax.jit(depthwise_conv).trace(x, kernel)
    assert "convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("shape", [(4, 4, 3), (7, 5, 3), (7, 7, 4), (7, 7, 3, 1)])
def test_a_kernel_of_the_wrong_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"kernel \[k,k,1,3\] or \[k,k,3\] with odd k, got"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros(shape))


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'shifted' is none of auto, conv, shift, banded, pallas"):
        depthwise_conv(jnp.zeros((1, 8, 8, 3)), jnp.zeros((7, 7, 3)), implementation="shifted")


def test_xla_s_convolution_is_no_call_on_a_cpu() -> None:
    """It took up to a hundred times as long as one, backward."""

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda kernel: depthwise_conv(x, kernel, implementation="conv").sum())(kernel)

    program = jax.jit(gradient).lower(jnp.ones((2, 4, 4, 8)), jnp.ones((3, 3, 8))).compile().as_text()
    assert " convolution(" in program
    assert " call(" not in program
