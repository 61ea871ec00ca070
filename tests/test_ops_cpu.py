"""What must not be fused stays a call, with the values and derivatives of the function itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convnext_jax.ops.cpu import unfused
from convnext_jax.ops.depthwise import depthwise_conv
from convnext_jax.ops.layer_norm import layer_norm


def scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return jnp.sin(x) * scale


def compiled(function, *arguments: jax.Array) -> str:
    return jax.jit(function).lower(*arguments).compile().as_text()


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("transform", [lambda f: f, lambda f: jax.grad(lambda *a: f(*a).sum(), (0, 1)), jax.checkpoint])
def test_the_values_are_the_function_s_own(transform) -> None:
    x, scale = draw(5, 3), draw(3)
    jax.tree.map(np.testing.assert_array_equal, transform(unfused(scaled))(x, scale), transform(scaled)(x, scale))


def test_it_is_a_call_in_a_loop_a_batch_and_a_gradient() -> None:
    x, scale = draw(5, 3), draw(3)
    function = unfused(scaled)
    programs = [
        function,
        jax.vmap(function, (0, None)),
        lambda x, scale: jax.lax.map(lambda row: function(row, scale), x),
        jax.grad(lambda x, scale: function(x, scale).sum()),
    ]
    for program in programs:
        assert " call(" in compiled(program, x, scale)
    assert " call(" not in compiled(scaled, x, scale)


def test_what_is_called_inside_is_no_call_of_its_own() -> None:
    inner = jax.jit(scaled)
    program = compiled(unfused(lambda x, scale: inner(x, scale) + 1.0), draw(5, 3), draw(3))
    assert program.count(" call(") == 1


def test_a_sharded_batch_stays_sharded_inside() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x = jax.device_put(draw(8, 3), NamedSharding(mesh, PartitionSpec("data")))
    scale = jax.device_put(draw(3), NamedSharding(mesh, PartitionSpec()))
    function = jax.jit(unfused(scaled))
    np.testing.assert_array_equal(function(x, scale), scaled(draw(8, 3), draw(3)))
    program = compiled(function, x, scale)
    assert "f32[2,3]{1,0} call(" in program
    assert "all-gather" not in program


def test_other_platforms_have_no_such_call() -> None:
    lowered = jax.jit(unfused(scaled)).trace(draw(5, 3), draw(3)).lower(lowering_platforms=("cuda",))
    assert "inlineable" not in lowered.as_text()


def test_a_convolution_before_a_layer_norm_is_computed_once() -> None:
    """XLA would compute it in the mean, in the variance and in the output."""
    x, kernel = draw(2, 8, 8, 16), draw(7, 7, 16)

    def block(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = depthwise_conv(x, kernel, implementation="shift")
        return layer_norm(y + 1.0, jnp.ones(16), jnp.zeros(16))

    taps = [line for line in compiled(block, x, kernel).splitlines() if " multiply(" in line]
    assert 49 <= len(taps) < 2 * 49
