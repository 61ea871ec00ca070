"""CvT against the paper written out in float64 NumPy, its class token and running statistics, and what is refused."""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CVT
from numpy_layers import batch_norm, conv, depthwise, gelu, images, layer_norm, linear, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.evaluate.grad_cam import explainable_stage
from convnext_jax.models import MODELS, create_model, merge_model, split_model
from convnext_jax.models.costs import summarize
from convnext_jax.models.parameters import batch_stats_of, flat


def conv_attention(tokens: np.ndarray, grid: tuple[int, int], params: Any, heads: int) -> np.ndarray:
    """The class token, where there is one, goes past the convolutions. Scores are over the root of all channels."""
    others, channels = tokens.shape[1] - math.prod(grid), tokens.shape[2]

    def project(name: str, stride: int) -> np.ndarray:
        own = params[name]
        x = depthwise(tokens[:, others:].reshape(-1, *grid, channels), own["depthwise"]["conv"])[:, ::stride, ::stride]
        x = batch_norm(x, own["depthwise"]["norm"]).reshape(len(x), -1, channels)
        x = linear(np.concatenate([tokens[:, :others], x], 1), own["linear"])
        return x.reshape(len(x), -1, heads, channels // heads)

    query, key, value = project("query", 1), project("key", 2), project("value", 2)
    weights = np.exp(np.einsum("bqhc,bkhc->bhqk", query, key) / math.sqrt(channels))
    mixed = np.einsum("bhqk,bkhc->bqhc", weights / weights.sum(-1, keepdims=True), value)
    return linear(mixed.reshape(tokens.shape), params["project"])


def block(tokens: np.ndarray, grid: tuple[int, int], params: Any, heads: int) -> np.ndarray:
    tokens = tokens + conv_attention(layer_norm(tokens, params["norm1"], 1e-5), grid, params["attention"], heads)
    hidden = gelu(linear(layer_norm(tokens, params["norm2"], 1e-5), params["expand"]))
    return tokens + linear(hidden, params["project"])


@pytest.mark.parametrize("size", [(16, 16), (10, 13)])
def test_logits_and_features_are_those_of_the_paper(size: tuple[int, int]) -> None:
    model, params = with_random_weights(create_model(CVT, num_classes=5))
    x = images(2, *size, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    first, second = (params["stages"][str(index)] for index in range(2))
    x = layer_norm(conv(x.astype(np.float64), params["stem"]["conv"], 2, 1), params["stem"]["norm"], 1e-5)
    x = block(x.reshape(2, -1, 4), x.shape[1:3], first["blocks"]["0"], 1).reshape(x.shape)
    np.testing.assert_allclose(features[0], x, rtol=1e-4, atol=1e-5)
    own = second["downsample"]
    x = layer_norm(conv(x, own["conv"], 2, 1), own["norm"], 1e-5)
    token = np.broadcast_to(own["class_token"], (2, 1, 8))
    tokens = block(np.concatenate([token, x.reshape(2, -1, 8)], 1), x.shape[1:3], second["blocks"]["0"], 2)
    np.testing.assert_allclose(features[1], tokens[:, 1:].reshape(x.shape), rtol=1e-4, atol=1e-5)
    expected = linear(layer_norm(tokens[:, 0], params["norm"], 1e-5), params["head"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_last_stage_alone_has_a_class_token() -> None:
    model = create_model(dataclasses.replace(CVT, depths=(1, 1, 1), dims=(4, 8, 8), heads=(1, 2, 2)), num_classes=3)
    tokens = [stage.downsample is not None and stage.downsample.class_token is not None for stage in model.stages]
    assert tokens == [False, False, True]
    maps = jax.eval_shape(model.features, jax.ShapeDtypeStruct((2, 18, 32, 3), jnp.float32))
    assert [m.shape for m in maps] == [(2, 9, 16, 4), (2, 5, 8, 8), (2, 3, 4, 8)]
    assert explainable_stage(model, (18, 32, 3)) == 2  # no logit depends on the map beside the class token


def test_the_summary_shows_the_map_beside_the_class_token() -> None:
    rows = summarize(CVT, height=16, width=24, num_classes=3)
    assert [row.output for row in rows] == [(8, 12, 4), (8, 12, 4), (4, 6, 8), (3,)]
    assert all(row.activation_bytes > 0 for row in rows[:-1])


def test_training_moves_the_running_statistics_of_every_projection() -> None:
    definition, params, batch_stats = split_model(create_model(CVT, num_classes=3, remat=True))

    @jax.jit
    def train(x):
        model = merge_model(definition, params, batch_stats)
        model(x, key=jax.random.key(0))
        return batch_stats_of(model)

    before, after = flat(batch_stats), flat(train(images(4, 8, 8, 3)))
    assert len(before) == 2 * 3 * 2  # means and variances of queries, keys and values of two blocks
    assert all(np.abs(after[path] - before[path]).max() > 0 for path in before)


@pytest.mark.parametrize(("stem", "smallest"), [("conv7x7_s4", 16), ("conv3x3_s2", 8)])
def test_an_image_too_small_is_refused_with_the_smallest_that_works(stem: str, smallest: int) -> None:
    architecture = dataclasses.replace(MODELS["cvt_13"], stem=stem)
    architecture.check_image_size(smallest, smallest)
    with pytest.raises(UserError, match=f"works is {smallest}x{smallest}; .* choose the stem 'conv3x3_s2'"):
        architecture.check_image_size(smallest - 1, smallest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "conv7x7"}, "stem='conv7x7': unknown; did you mean 'conv7x7_s4'? allowed: conv7x7_s4, conv3x3_s2"),
        ({"depths": (2,)}, "depths=(2,): must be two or more positive numbers, one for each stage"),
        ({"depths": (1, 0, 2)}, "depths=(1, 0, 2): must be two or more positive numbers, one for each stage"),
        ({"dims": (64, 192)}, "dims=(64, 192): must be positive numbers of 3 stages"),
        ({"heads": (1, 3, 5)}, "heads=(1, 3, 5): must be divisors of dims=(64, 192, 384)"),
        ({"expansion": 0}, "expansion=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["cvt_13"], **changes)
