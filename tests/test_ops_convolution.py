"""Convolutions with every window, stride, padding and number of groups, against XLA's own."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.convolution import Padding, conv

NONE: Padding = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class Case:
    """Sides of the map and of the kernel, channels before and after, the options, and how many maps."""

    map: tuple[int, int]
    kernel: tuple[int, int]
    channels: tuple[int, int] = (3, 5)
    stride: int = 1
    padding: Padding = NONE
    groups: int = 1
    batch: int = 2


CASES = {
    "one pixel": Case((4, 6), (1, 1)),
    "one pixel, stride 2": Case((5, 6), (1, 1), stride=2),
    "one pixel, stride 2, padding": Case((5, 6), (1, 1), stride=2, padding=((1, 1), (1, 1))),
    "patches": Case((8, 4), (4, 4), stride=4),
    "patches, pixels left over": Case((9, 11), (2, 2), stride=2),
    "patches, padding": Case((7, 8), (2, 2), stride=2, padding=((1, 0), (0, 2))),
    "window": Case((8, 5), (3, 3), padding=((1, 1), (1, 1))),
    "window, stride 2": Case((9, 6), (3, 3), stride=2, padding=((1, 1), (1, 1))),
    "window, asymmetric": Case((9, 6), (3, 3), stride=2, padding=((0, 1), (2, 1))),
    "window on one pixel": Case((1, 1), (3, 3), stride=2, padding=((1, 1), (1, 1))),
    "flat window": Case((5, 7), (1, 3), padding=((0, 0), (1, 1))),
    "stride beyond the window": Case((9, 10), (2, 2), stride=3),
    "many channels, few pixels": Case((4, 3), (3, 3), (40, 5), padding=((1, 1), (1, 1))),
    "many channels, few pixels, stride 2": Case((5, 4), (3, 3), (40, 5), stride=2, padding=((0, 1), (1, 1))),
    "many channels": Case((5, 6), (3, 3), (40, 5), padding=((1, 1), (1, 1))),
    "a map in chunks": Case((33, 32), (3, 3), (30, 5), padding=((1, 1), (1, 1)), batch=8),
    "a map in chunks, stride 2": Case((50, 61), (3, 3), (30, 5), stride=2, padding=((0, 1), (1, 2)), batch=9),
    "many maps of no divisor": Case((33, 32), (3, 3), (30, 5), padding=((1, 1), (1, 1)), batch=17),
    "many channels, asymmetric": Case((9, 6), (3, 3), (40, 5), stride=2, padding=((0, 1), (2, 1))),
    "two groups": Case((5, 6), (3, 3), (4, 6), padding=((1, 1), (1, 1)), groups=2),
    "two groups, asymmetric": Case((9, 6), (3, 3), (4, 6), stride=2, padding=((0, 1), (2, 1)), groups=2),
    "two groups of patches": Case((8, 6), (2, 2), (4, 6), stride=2, groups=2),
    "two groups of one pixel": Case((3, 4), (1, 1), (4, 6), groups=2),
    "groups in two parts": Case((5, 6), (3, 3), (128, 64), padding=((1, 1), (1, 1)), groups=32),
    "groups in two parts, stride 2": Case((6, 5), (3, 3), (128, 128), stride=2, padding=((1, 1), (1, 1)), groups=16),
    "small groups on a wide map": Case((5, 9), (3, 3), (12, 6), padding=((1, 1), (1, 1)), groups=3),
    "small groups, asymmetric": Case((5, 10), (2, 3), (12, 24), padding=((0, 1), (2, 0)), groups=3),
    "depthwise": Case((5, 6), (3, 3), (6, 6), padding=((1, 1), (1, 1)), groups=6),
    "depthwise, stride 2": Case((6, 5), (5, 5), (6, 6), stride=2, padding=((2, 2), (2, 2)), groups=6),
    "depthwise, asymmetric": Case((6, 5), (3, 3), (6, 6), stride=2, padding=((0, 1), (0, 1)), groups=6),
    "a group for each channel": Case((5, 6), (3, 3), (4, 8), stride=2, padding=((1, 1), (1, 1)), groups=4),
}


def draw(case: Case) -> tuple[jax.Array, jax.Array]:
    random, (inputs, outputs) = np.random.default_rng(0), case.channels
    shapes = (case.batch, *case.map, inputs), (*case.kernel, inputs // case.groups, outputs)
    x, kernel = (jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)
    return x, kernel


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_xla(name: str) -> None:
    case = CASES[name]
    x, kernel = draw(case)

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv(x, kernel, stride=case.stride, padding=case.padding, groups=case.groups)

    def expected(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (case.stride, case.stride),
            case.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=case.groups,
        )

    def with_gradients(convolve, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        y, pull = jax.vjp(convolve, x, kernel)
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))

    both = jax.jit(lambda x, kernel: [with_gradients(convolve, x, kernel) for convolve in (ours, expected)])
    for found, wanted in zip(*both(x, kernel), strict=True):
        # The kernel's gradient sums over all pixels, in another order.
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.sqrt(case.batch * np.prod(case.map)))


@pytest.mark.parametrize("name", ["a map in chunks", "a map in chunks, stride 2", "small groups on a wide map"])
def test_the_gradient_of_a_bfloat16_kernel_is_rounded_once(name: str) -> None:
    case = CASES[name]
    x, kernel = draw(case)
    options: Any = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    x, kernel = (1 + 0.1 * array for array in (x, kernel))  # sums that grow with every term

    def gradient(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda kernel: conv(x, kernel, **options).astype(jnp.float32).sum())(kernel)

    x16, kernel16 = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    found = jax.jit(gradient)(x16, kernel16)
    expected = jax.jit(gradient)(x16.astype(jnp.float32), kernel16.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2.0**-7)


BFLOAT16 = ["one pixel", "patches", "window", "many channels", "two groups", "small groups on a wide map"]


@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_stays_bfloat16(name: str) -> None:
    case = CASES[name]
    x, kernel = draw(case)
    options = {"stride": case.stride, "padding": case.padding, "groups": case.groups}
    exact = conv(x, kernel, **options)
    half = conv(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), **options)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize(("platform", "stride", "apart"), [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)])
def test_an_nvidia_gpu_takes_the_pixels_of_a_stride_before_the_product(
    platform: str, stride: int, apart: bool, side: int
):
    # Within the product XLA's compiler for them (jax 0.11) dies, and a ResNet-50 cannot be trained.
    def gradient(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        return jax.grad(lambda x, kernel: conv(x, kernel, stride=stride).sum(), argnums=(0, 1))(x, kernel)

    arrays = draw(Case((4, 4), (side, side), stride=stride))
    program = jax.jit(gradient).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in program) == apart
