"""GoogLeNet against the paper in float64 NumPy, its auxiliary heads, and what is refused."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, images, linear, relu, with_random_weights
from scipy.special import log_softmax, softmax

from convnext_jax.errors import UserError
from convnext_jax.models import (
    MODELS,
    abstract_model,
    count_parameters,
    create_model,
    merge_model,
    split_model,
)
from convnext_jax.models.costs import summarize
from convnext_jax.models.googlenet import STEMS, GoogLeNetArchitecture
from convnext_jax.models.parameters import flat
from convnext_jax.models.weights import ModelFolder, start_from
from convnext_jax.tasks.classification import Classification
from convnext_jax.train.gradients import gradient

SMALL = GoogLeNetArchitecture((1, 1, 1), width=4, stem="conv3x3_s1", window=5, norm="none", auxiliary_dropout=0.0)


def max_pool(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """With windows that reach beyond the map, or around it at stride 1; no value is negative."""
    before, after = (1, 1) if stride == 1 else (0, size)
    padded = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    rows, columns = (
        range(0, side, stride) if stride == 1 else range(0, side - size + stride, stride) for side in x.shape[1:3]
    )
    return np.stack(
        [np.stack([padded[:, r : r + size, c : c + size].max((1, 2)) for c in columns], 1) for r in rows], 1
    )


def conv_relu(x: np.ndarray, params: Any, stride: int = 1) -> np.ndarray:
    y = conv(x, params["conv"], stride, params["conv"]["kernel"].shape[0] // 2)
    if "norm" in params:
        mean, variance, scale, bias = (params["norm"][name] for name in ("mean", "variance", "scale", "bias"))
        y = (y - mean) / np.sqrt(variance + 1e-3) * scale + bias
    return relu(y)


def inception(x: np.ndarray, params: Any) -> np.ndarray:
    return np.concatenate(
        [
            conv_relu(x, params["single"]),
            conv_relu(conv_relu(x, params["reduce_second"]), params["second"]),
            conv_relu(conv_relu(x, params["reduce_third"]), params["third"]),
            conv_relu(max_pool(x, 3, 1), params["pooled"]),
        ],
        -1,
    )


def reference_features(x: np.ndarray, params: Any, architecture: GoogLeNetArchitecture) -> list[np.ndarray]:
    _, stride, pools = STEMS[architecture.stem]
    x = conv_relu(x, params["stem"], stride)
    x = max_pool(x, 3, 2) if pools else x
    x = conv_relu(conv_relu(x, params["stem"]["reduce"]), params["stem"]["expand"])
    x = max_pool(x, 3, 2) if pools else x
    maps = []
    for size, stage in zip((0, 3, architecture.last_pool), params["stages"].values(), strict=True):
        x = max_pool(x, size, 2) if size else x
        x = inception(x, stage["blocks"]["0"])
        maps.append(x)
    return maps


@pytest.mark.parametrize(
    ("changes", "side"),
    [({}, (9, 12)), ({"stem": "conv7x7_s2_pools", "norm": "batch", "window": 3, "last_pool": 3}, (40, 63))],
    ids=["small", "large"],
)
def test_logits_and_features_are_those_of_the_paper(changes: dict, side: tuple[int, int]) -> None:
    architecture = dataclasses.replace(SMALL, **changes)
    model, params = with_random_weights(create_model(architecture, num_classes=5))
    x = images(2, *side, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    expected = reference_features(x.astype(np.float64), params, architecture)
    for found, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, linear(expected[-1].mean((1, 2)), params["head"]), rtol=1e-4, atol=1e-5)


def test_an_auxiliary_head_classifies_the_map_of_its_block_in_training() -> None:
    model, params = with_random_weights(create_model(SMALL, num_classes=5))
    x, key = images(2, 16, 16, 3), jax.random.key(0)
    logits, (auxiliary,) = jax.jit(lambda x: model.training_outputs(x, key=key))(x)
    np.testing.assert_allclose(logits, jax.jit(lambda x: model(x, key=key))(x), rtol=1e-5, atol=1e-6)
    own = params["auxiliary"]["0"]
    y = reference_features(x.astype(np.float64), params, SMALL)[1]  # [2,8,8,32]
    y = conv_relu(y.reshape(2, 4, 2, 4, 2, -1).mean((2, 4)), own["conv"])  # [2,4,4,8]
    y = relu(linear(y.reshape(2, -1), own["hidden"]))
    np.testing.assert_allclose(auxiliary, linear(y, own["head"]), rtol=1e-4, atol=1e-5)


def test_the_loss_of_training_has_three_tenths_of_that_of_an_auxiliary_head() -> None:
    definition, params, batch_stats = split_model(create_model(SMALL, num_classes=5))
    x, labels, key = jnp.asarray(images(3, 8, 8, 3)), jnp.array([0, 3, 4]), jax.random.key(1)
    task = Classification(5)

    @jax.jit
    def run(params):
        outputs = merge_model(definition, params, batch_stats).training_outputs(x, key=key)
        return outputs, gradient(definition, task, params, batch_stats, x, task.targets(labels), key)

    (logits, (auxiliary,)), (grads, result) = run(params)
    losses = [-log_softmax(np.float64(each), -1)[np.arange(3), labels].mean() for each in (logits, auxiliary)]
    np.testing.assert_allclose(result.metrics["loss"], losses[0] + 0.3 * losses[1], rtol=1e-6)
    # The slope of a cross-entropy by the logits is softmax minus the one of the class.
    slopes = [(softmax(np.float64(each), -1) - np.eye(5)[labels]).mean(0) for each in (logits, auxiliary)]
    np.testing.assert_allclose(grads["head"]["bias"], slopes[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(grads["auxiliary"]["0"]["head"]["bias"], 0.3 * slopes[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("depth", "count"), [(1, 1), (3, 1), (4, 2), (5, 2)])
def test_the_first_and_the_fourth_block_of_the_second_stage_have_heads(depth: int, count: int) -> None:
    def run(auxiliary_heads: bool) -> tuple:
        architecture = dataclasses.replace(SMALL, depths=(1, depth, 1), auxiliary_heads=auxiliary_heads)
        model = create_model(architecture, num_classes=5)
        return model.training_outputs(jnp.zeros((2, 8, 8, 3)), key=jax.random.key(0))[1]

    assert [each.shape for each in jax.eval_shape(lambda: run(True))] == [(2, 5)] * count
    assert jax.eval_shape(lambda: run(False)) == ()


def test_dropout_in_an_auxiliary_head_is_drawn_by_the_key_of_the_step() -> None:
    model, _ = with_random_weights(create_model(dataclasses.replace(SMALL, auxiliary_dropout=0.5), num_classes=5))
    run = jax.jit(lambda key: model.training_outputs(images(2, 8, 8, 3), key=key))
    (logits, (one,)), (same_logits, (other,)) = run(jax.random.key(0)), run(jax.random.key(1))
    np.testing.assert_array_equal(logits, same_logits)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(one, run(jax.random.key(0))[1][0])


@pytest.mark.parametrize(("name", "without"), [("googlenet", 6_624_904), ("googlenet_2014", 6_998_552)])
def test_without_auxiliary_heads_the_parameters_are_the_published_ones(name: str, without: int) -> None:
    model = abstract_model(lambda: create_model(name, num_classes=1000, auxiliary_heads=False))
    assert count_parameters(model.params) == without


def test_an_auxiliary_head_costs_parameters_and_no_inference() -> None:
    (*with_head, end), (*without, plain) = (
        summarize(dataclasses.replace(SMALL, auxiliary_heads=each), height=8, width=8, num_classes=5)
        for each in (True, False)
    )
    assert with_head == without and end.macs == plain.macs
    # 1x1 from 32 channels to 8, 4x4 places of them to 64, and those to 5 classes; each with biases.
    assert end.parameters - plain.parameters == 33 * 8 + (16 * 8 + 1) * 64 + 65 * 5


def test_heads_of_another_number_of_classes_are_fresh_the_auxiliary_ones_too() -> None:
    def split(num_classes: int, seed: int) -> tuple:
        return split_model(create_model(SMALL, num_classes=num_classes, seed=seed))[1:]

    old, new = split(5, 0), split(3, 1)
    names = tuple("abcde")
    folder = ModelFolder(*old, "googlenet", {}, names, (0.5,) * 3, (0.25,) * 3, "a test")
    params, _, notes = start_from(folder, SMALL, *new)
    assert notes == ["a fresh head of 3 classes replaces the one of 5"]
    found, before, fresh = (flat(tree) for tree in (params, old[0], new[0]))
    for path, array in found.items():
        of_a_head = path.split("/")[-2] == "head"
        np.testing.assert_array_equal(array, (fresh if of_a_head else before)[path])
    assert {path for path in found if "head" in path} == {
        f"{place}head/{leaf}" for place in ("", "auxiliary/0/") for leaf in ("kernel", "bias")
    }


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("last_pool", [2, 3])
def test_an_image_too_small_for_the_pools_is_refused_with_the_smallest_that_works(stem: str, last_pool: int) -> None:
    model = create_model(SMALL, num_classes=5, stem=stem, last_pool=last_pool)
    smallest = {"conv7x7_s2_pools": (15, 31), "conv3x3_s1": (2, 4), "conv3x3_s2": (3, 7)}[stem][last_pool - 2]

    def run(side: int) -> tuple:
        return jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, side, 64, 3), jnp.float32))

    assert run(smallest)[-1].shape[1] == 1
    message = f"works is {smallest}x{smallest}; enlarge them or choose the stem 'conv3x3_s1'"
    with pytest.raises(UserError, match=message):
        run(smallest - 1)
    with pytest.raises(UserError, match=message):
        model.training_outputs(jnp.zeros((1, smallest - 1, 64, 3)), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stem": "patch4"},
            "stem='patch4': unknown; allowed: conv7x7_s2_pools, conv3x3_s1",
        ),
        ({"norm": "layer"}, "norm='layer': unknown; allowed: none, batch"),
        ({"depths": (2, 5)}, "depths=(2, 5): must be three positive numbers, at most 2, 5 and 2"),
        ({"depths": (2, 6, 2)}, "depths=(2, 6, 2): must be three positive numbers, at most 2, 5 and 2"),
        ({"depths": (0, 5, 2)}, "depths=(0, 5, 2): must be three positive numbers, at most 2, 5 and 2"),
        ({"width": 0}, "width=0: must be 1 or more"),
        ({"window": 4}, "window=4: must be an odd number, 1 or more"),
        ({"last_pool": 4}, "last_pool=4: must be 2 or 3"),
        ({"auxiliary_dropout": 1.0}, "auxiliary_dropout=1.0: must be in [0, 1)"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["googlenet"], **changes)
