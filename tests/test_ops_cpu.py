"""What a CPU needs and no other platform: the same values and derivatives, with less work or less memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.ops.cpu import unfused_on_cpu, update_in_place_on_cpu, vmap_or_loop_on_cpu
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.ops.layer_norm import layer_norm
from convnext_jax.sharding import Sharding, make_mesh


def scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.sin(x) * scale


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "call": lambda function: function,
    "gradient": lambda function: jax.grad(lambda *arrays: function(*arrays).sum(), (0, 1)),
    "checkpoint": lambda function: jax.grad(lambda *arrays: jax.checkpoint(function)(*arrays).sum(), (0, 1)),
    "batch": lambda function: jax.vmap(function, (0, None)),
    "loop": lambda function: lambda x, scale: jax.lax.map(lambda row: function(row, scale), x),
    "gradient of a loop": lambda function: jax.grad(
        lambda x, scale: jax.lax.map(lambda row: function(row, scale), x).sum(), (0, 1)
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_unfused_values_and_derivatives_are_the_function_s_own(transform: str) -> None:
    x, scale = draw(5, 3), draw(3)
    found, expected = (
        jax.jit(TRANSFORMS[transform](function))(x, scale) for function in (unfused_on_cpu(scaled), scaled)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


def test_a_sharded_batch_stays_sharded_inside() -> None:
    sharding = Sharding(make_mesh(jax.devices()[:4]))
    x, scale = draw(64, 32), draw(32)
    placed = jax.device_put(x, sharding.batch), jax.device_put(scale, sharding.replicated)
    compiled = jax.jit(unfused_on_cpu(scaled)).lower(*placed).compile()
    y = compiled(*placed)
    assert y.sharding.is_equivalent_to(sharding.batch, 2)
    np.testing.assert_allclose(y, scaled(x, scale), rtol=1e-6)
    # No device holds the whole batch at any time.
    assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes / 2


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_program_for_another_platform_is_that_of_the_plain_function(platform: str) -> None:
    def lowered(function: Callable[..., jax.Array]) -> jax.stages.Lowered:
        return jax.jit(function).trace(draw(5, 3), draw(3)).lower(lowering_platforms=(platform,))

    found, plain = lowered(unfused_on_cpu(scaled)), lowered(scaled)
    assert found.out_info == plain.out_info


def test_a_convolution_before_a_layer_norm_is_computed_once() -> None:
    """XLA would compute it in the mean, in the variance and in the output."""
    x, kernel = draw(2, 8, 8, 16), draw(7, 7, 16)

    def block(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = depthwise_conv(x, kernel, implementation="shift")
        return layer_norm(y + 1.0, jnp.ones(16), jnp.zeros(16))

    once = 2 * 49 * x.size
    assert once <= jax.jit(block).lower(x, kernel).compile().cost_analysis()["flops"] < 1.5 * once


def test_an_update_in_place_has_the_same_values() -> None:
    grads = {"kernel": draw(5, 3), "bias": draw(3)}
    found = jax.jit(update_in_place_on_cpu)(grads, jnp.float32(7.0))
    jax.tree.map(np.testing.assert_array_equal, found, grads)


@pytest.mark.parametrize("norm", [np.inf, np.nan])
def test_an_update_from_a_broken_gradient_shows_it(norm: float) -> None:
    found = jax.jit(update_in_place_on_cpu)({"kernel": draw(5, 3)}, jnp.float32(norm))
    assert np.isnan(found["kernel"]).all()


def test_a_map_over_examples_is_vmap() -> None:
    def choose(index: jax.Array, x: jax.Array) -> jax.Array:
        return jax.lax.switch(index, [jnp.sin, jnp.cos, jnp.negative], x)

    indices, x = jnp.array([2, 0, 1, 2]), draw(4, 3)
    found = jax.jit(vmap_or_loop_on_cpu(choose))(indices, x)
    np.testing.assert_allclose(found, jax.vmap(choose)(indices, x), rtol=1e-6)
