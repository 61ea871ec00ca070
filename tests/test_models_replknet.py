"""RepLKNet: its windows merged for inference, and what is refused. `test_models_torch` compares the network."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import REPLKNET
from numpy_layers import batch_norm, depthwise, images, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model, split_model
from convnext_jax.models.parameters import flat
from convnext_jax.models.replknet import merge_small_kernels


@pytest.mark.parametrize("small_kernel", [3, 0])
def test_a_merged_network_gives_the_same_answers(small_kernel: int) -> None:
    architecture = dataclasses.replace(REPLKNET, small_kernel=small_kernel)
    model, _ = with_random_weights(create_model(architecture, num_classes=5))
    merged, x = merge_small_kernels(model), images(2, 12, 9, 3)
    run = jax.jit(lambda x: (model(x), merged(x)))
    np.testing.assert_allclose(*run(x), rtol=1e-4, atol=1e-5)
    # Those of the network that `merged` asks for, and the given one is as it was.
    wanted = split_model(create_model(architecture, num_classes=5, merged=True))
    found = split_model(merged)
    assert found[0] == wanted[0]
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert {p: leaf.shape for p, leaf in flat(ours).items()} == {p: leaf.shape for p, leaf in flat(theirs).items()}
    assert any("/small/" in path or "/large/" in path for path in flat(split_model(model)[1]))
    again = split_model(merge_small_kernels(merged))
    jax.tree.map(np.testing.assert_array_equal, again[1:], found[1:])


def test_the_windows_are_added_each_with_its_norm() -> None:
    model, params = with_random_weights(create_model(REPLKNET, num_classes=5))
    x, own = images(1, 7, 6, 8), params["stages"]["0"]["blocks"]["0"]["spatial"]
    branches = [batch_norm(depthwise(np.float64(x), own[name]["conv"]), own[name]["norm"]) for name in own]
    assert len(branches) == 2
    np.testing.assert_allclose(jax.jit(model.stages[0].blocks[0].spatial)(x), sum(branches), rtol=1e-4, atol=1e-5)


def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works() -> None:
    model = create_model(dataclasses.replace(REPLKNET, stem="stride4"), num_classes=5)

    def run(side: int) -> tuple[jax.Array, ...]:
        return jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, side, 16, 3), jnp.float32))

    assert [m.shape for m in run(8)] == [(1, 2, 4, 8), (1, 1, 2, 16)]
    with pytest.raises(UserError, match=r"7x16 pixels .* works is 8x8; enlarge them or choose the stem 'stride1'"):
        run(7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "stride3"}, "stem='stride3': unknown; did you mean 'stride"),
        ({"depths": (2, 2, 0, 2)}, "depths=(2, 2, 0, 2): must be positive numbers, one for each stage"),
        ({"dims": (8, 16, 32)}, "dims=(8, 16, 32): must be 4 positive numbers"),
        ({"kernel_sizes": (31, 29, 26, 13)}, "kernel_sizes=(31, 29, 26, 13): must be 4 odd and positive numbers"),
        ({"small_kernel": 4}, "small_kernel=4: must be 0 (left out), or odd and at most 13"),
        ({"small_kernel": 15}, "small_kernel=15: must be 0 (left out), or odd and at most 13"),
        ({"expansion": 0}, "expansion=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["replknet31b"], **changes)
