"""Rematerialization: the same values, gradients and running statistics, in less memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import images, initializer, randomize
from tiny import tiny_model

from convnext_jax.layers.convolution import Conv
from convnext_jax.layers.normalization import BatchNorm
from convnext_jax.layers.rematerialization import call_rematerialized, rematerialized
from convnext_jax.layers.stochastic import BranchScales, add_branch
from convnext_jax.models.parameters import batch_stats_of, merge_model, split_model


class Block(nnx.Module):
    """Convolution, BatchNorm, ReLU, residual."""

    branches = 1

    def __init__(self) -> None:
        self.conv = Conv(initializer("fan_in"), 4, 4, 3, padding=1)
        self.norm = BatchNorm(4)

    def __call__(self, x: jax.Array, *, training: bool = False, scales: BranchScales = None) -> jax.Array:
        branch = jax.nn.relu(self.norm(self.conv(x), training=training))
        return add_branch(x, branch, None if scales is None else scales[0])


def in_training(block: Block, x: jax.Array, scales: BranchScales) -> jax.Array:
    return block(x, training=True, scales=scales)


@pytest.mark.parametrize("scales", [None, (jnp.array([0.0, 2.0, 1.0]),)], ids=["whole", "dropped"])
def test_a_block_with_batch_norm(scales: BranchScales) -> None:
    definition, params, batch_stats = split_model(Block())
    params, batch_stats = randomize(params), randomize(batch_stats)
    x, weights = images(3, 5, 6, 4), images(3, 5, 6, 4, seed=4)

    def run(call: Callable[..., jax.Array]) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            block = merge_model(definition, params, batch_stats)
            y = call(block, x, scales)
            return (y * weights).sum(), (y, batch_stats_of(block))

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)

    plain, found = run(in_training), run(call_rematerialized)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, plain)
    (_, (_, after)), _ = found
    assert np.abs(after["norm"]["mean"] - batch_stats["norm"]["mean"]).max() > 1e-3


def test_a_network_with_batch_norm_and_drop_path() -> None:
    x, key = images(4, 16, 16, 3), jax.random.key(0)

    def run(remat: bool) -> Any:
        definition, params, batch_stats = split_model(tiny_model(norm="batch", drop_path=0.5, remat=remat))

        def loss(params: Any) -> tuple[jax.Array, Any]:
            model = merge_model(definition, params, batch_stats)
            return jnp.square(model(x, key=key)).sum(), batch_stats_of(model)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(randomize(params))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), run(True), run(False))


def test_the_backward_pass_keeps_the_arguments_alone() -> None:
    def block(x: jax.Array, wide: jax.Array, narrow: jax.Array) -> jax.Array:
        return x + jnp.sin(jnp.exp(x @ wide)) @ narrow

    x, wide, narrow = (jnp.asarray(images(*shape)) for shape in ((128, 16), (4, 16, 64), (4, 64, 16)))

    def gradient(function: Callable[..., jax.Array]) -> jax.stages.Compiled:
        def loss(x: jax.Array, wide: jax.Array, narrow: jax.Array) -> jax.Array:
            for index in range(4):
                x = function(x, 0.05 * wide[index], 0.05 * narrow[index])
            return x.sum()

        return jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, wide, narrow).compile()

    plain, found = gradient(block), gradient(rematerialized(block))
    for one, other in zip(found(x, wide, narrow), plain(x, wide, narrow), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    # Less by at least a wide map for each block but the last.
    saved = plain.memory_analysis().temp_size_in_bytes - found.memory_analysis().temp_size_in_bytes
    assert saved > 3 * 128 * 64 * x.itemsize
