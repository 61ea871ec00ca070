"""The Vision Transformer against the paper written out in float64 NumPy, with random weights."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import attention, conv, gelu, images, layer_norm, linear, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model
from convnext_jax.models.vit import ViTArchitecture

SMALL = ViTArchitecture(8, 5, 2, patch_size=4, image_size=16)
# Five blocks in four parts.
DEPTHS = (1, 1, 1, 2)


def cubic_weights(old: int, new: int) -> np.ndarray:
    """Keys' cubic convolution (a = -0.5) from pixel to pixel, for a side that does not shrink."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    d = np.abs(places[:, None] - np.arange(old))
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1.0, -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


def positions(table, grid):
    """The table [1+16,C] on another grid."""
    down, across = (cubic_weights(4, side) for side in grid)
    resized = np.einsum("ai,bj,ijc->abc", down, across, table[1:].reshape(4, 4, -1))
    return np.concatenate([table[:1], resized.reshape(-1, table.shape[1])])


def block(x, params):
    x = x + attention(layer_norm(x, params["norm1"]), params["attention"], SMALL.heads)
    return x + linear(gelu(linear(layer_norm(x, params["norm2"]), params["expand"])), params["project"])


def reference_tokens(x, params):
    """What each part returns."""
    stem, grid = params["stem"], (x.shape[1] // 4, x.shape[2] // 4)
    patches = conv(x, stem["conv"], 4).reshape(len(x), -1, SMALL.dim)
    x = np.concatenate([np.broadcast_to(stem["class_token"], (len(x), 1, SMALL.dim)), patches], 1)
    x, parts = x + positions(stem["position"], grid), []
    for index, depth in enumerate(DEPTHS):
        for number in range(depth):
            x = block(x, params["stages"][str(index)]["blocks"][str(number)])
        parts.append(x)
    return parts


# Its own size; larger in one direction; with pixels that fill no patch.
@pytest.mark.parametrize("side", [(16, 16), (16, 24), (31, 20)])
def test_logits_and_features_are_those_of_the_paper(side: tuple[int, int]) -> None:
    model, params = with_random_weights(create_model(SMALL, num_classes=5))
    x = images(2, *side, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    expected = reference_tokens(x.astype(np.float64), params)
    for found, wanted in zip(features, expected, strict=True):
        assert found.shape == (2, side[0] // 4, side[1] // 4, SMALL.dim)
        np.testing.assert_allclose(found, wanted[:, 1:].reshape(found.shape), rtol=1e-4, atol=1e-4)
    token = layer_norm(expected[-1][:, 0], params["norm"])
    np.testing.assert_allclose(logits, linear(token, params["head"]), rtol=1e-4, atol=1e-4)


def test_a_smaller_image_than_the_table_s() -> None:
    model, _ = with_random_weights(create_model(SMALL, num_classes=5))
    logits = jax.jit(model)(images(2, 8, 8, 3))
    assert logits.shape == (2, 5) and np.isfinite(logits).all()


def test_an_image_below_one_patch_is_refused() -> None:
    with pytest.raises(UserError, match="works is 4x4; enlarge them or choose a patch_size below 4"):
        create_model(SMALL, num_classes=5)(jnp.zeros((1, 3, 16, 3)))


@pytest.mark.parametrize(
    ("depth", "expected"), [(4, [1, 1, 1, 1]), (5, [1, 1, 1, 2]), (7, [1, 2, 2, 2]), (12, [3, 3, 3, 3])]
)
def test_blocks_are_in_four_parts_as_equal_as_possible(depth: int, expected: list[int]) -> None:
    model = create_model(dataclasses.replace(SMALL, depth=depth), num_classes=2)
    assert [len(stage.blocks) for stage in model.stages] == expected


def test_a_table_of_positions_is_adapted_to_another_image_size() -> None:
    table = images(17, 8)
    found = dataclasses.replace(SMALL, image_size=32).adapt_weight("stem/position", table, (65, 8))
    np.testing.assert_allclose(found, positions(table, (8, 8)), rtol=1e-4, atol=1e-5)
    assert SMALL.adapt_weight("stem/position", images(17, 6), (17, 8)) is None


def test_a_kernel_of_patches_is_adapted_and_answers_to_a_flat_image_as_before() -> None:
    kernel = images(16, 16, 3, 8)
    found = SMALL.adapt_weight("stem/conv/kernel", kernel, (4, 4, 3, 8))
    np.testing.assert_allclose(found.sum((0, 1)), kernel.sum((0, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim=0: must be 1 or more"),
        ({"heads": 0}, "heads=0: must be 1 or more"),
        ({"heads": 5}, "heads=5: must be a divisor of dim=192"),
        ({"depth": 3}, "depth=3: must be 4 or more"),
        ({"patch_size": 0}, "patch_size=0: must be 1 or more"),
        ({"image_size": 30}, "image_size=30: must be a multiple of patch_size=4"),
        ({"image_size": 0}, "image_size=0: must be a multiple of patch_size=4"),
        ({"expansion": 0}, "expansion=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["vit_tiny_patch4"], **changes)
