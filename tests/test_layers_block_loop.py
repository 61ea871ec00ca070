"""Blocks in a loop give the answers, the gradients and the running statistics of the same blocks in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import images, initializer, randomize

from convnext_jax.layers.block_loop import call_in_loop
from convnext_jax.models.parameters import batch_stats_of, merge_model, split_model
from convnext_jax.models.preact_resnet import Block
from convnext_jax.precision import Precision


def make_block(seed: int, width: int = 2) -> Block:
    block = Block(initializer(), 4 * width, width, stride=1, precision=Precision())
    definition, params, batch_stats = split_model(block)
    return merge_model(definition, randomize(params, seed), randomize(batch_stats, seed + 10))


@pytest.mark.parametrize(("training", "remat"), [(False, False), (True, False), (True, True)])
def test_a_loop_is_its_blocks_in_turn(training: bool, remat: bool) -> None:
    splits = [split_model(make_block(seed)) for seed in range(3)]
    trees = [split[1:] for split in splits]
    x = images(2, 4, 4, 8)
    scales = [(jnp.array([0.0, 2.0]) + number,) for number in range(3)] if training else [None] * 3

    def run(loop: bool, trees, x):
        blocks = [merge_model(split[0], *tree) for split, tree in zip(splits, trees, strict=True)]
        if loop:
            x = call_in_loop(blocks, x, scales, training=training, remat=remat)
        else:
            for block, own in zip(blocks, scales, strict=True):
                x = block(x, training=training, scales=own)
        return jnp.sin(x).sum(), (x, [batch_stats_of(block) for block in blocks])

    def both(trees, x):
        return [
            jax.value_and_grad(lambda *a, loop=loop: run(loop, *a), (0, 1), has_aux=True)(trees, x)
            for loop in (True, False)
        ]

    found, wanted = jax.jit(both)(trees, x)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4), found, wanted)
    before = np.asarray(trees[0][1]["norm1"]["mean"])
    assert np.array_equal(found[0][1][1][0]["norm1"]["mean"], before) != training


def test_blocks_that_differ_are_refused() -> None:
    blocks = [make_block(0), Block(initializer(), 8, 2, stride=1, precision=Precision("bfloat16", "float32"))]
    with pytest.raises(ValueError, match="^the blocks of a loop must be alike$"):
        call_in_loop(blocks, jnp.zeros((1, 4, 4, 8)), [None, None], training=False, remat=False)
