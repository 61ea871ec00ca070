"""ResNet against the paper written out in float64 NumPy, with random weights and running statistics."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import batch_norm, conv, images, linear, max_pool, relu, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model
from convnext_jax.models.resnet import STEMS, ResNetArchitecture

SMALL = ResNetArchitecture((1, 2), "basic", width=4, stem="conv3x3_s1")


def block(x, params, kind, stride):
    if kind == "basic":
        y = relu(batch_norm(conv(x, params["conv1"], stride, 1), params["norm1"]))
        y = batch_norm(conv(y, params["conv2"], 1, 1), params["norm2"])
    else:
        y = relu(batch_norm(conv(x, params["conv1"]), params["norm1"]))
        y = relu(batch_norm(grouped(y, params["conv2"]["kernel"], stride), params["norm2"]))
        y = batch_norm(conv(y, params["conv3"]), params["norm3"])
    if "shortcut" in params:
        x = batch_norm(conv(x, params["shortcut"]["conv"], stride), params["shortcut"]["norm"])
    elif new := y.shape[-1] - x.shape[-1]:
        x = np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (new // 2, new // 2)))
    return relu(x + y)


def grouped(x, kernel, stride):
    groups = x.shape[-1] // kernel.shape[2]
    parts = zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True)
    return np.concatenate([conv(part, {"kernel": own}, stride, 1) for part, own in parts], -1)


def reference_features(x, params, architecture):
    stride = 1 if architecture.stem == "conv3x3_s1" else 2
    padding = 3 if architecture.stem == "conv7x7_s2_pool" else 1
    x = relu(batch_norm(conv(x, params["stem"]["conv"], stride, padding), params["stem"]["norm"]))
    if architecture.stem == "conv7x7_s2_pool":
        x = max_pool(x, 3, 2, padding=1)
    maps = []
    for index, depth in enumerate(architecture.depths):
        for number in range(depth):
            own = params["stages"][str(index)]["blocks"][str(number)]
            x = block(x, own, architecture.block, 2 if index and not number else 1)
        maps.append(x)
    return maps


@pytest.mark.parametrize("side", [(8, 12), (9, 11)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block": "bottleneck"},
        {"stem": "conv3x3_s2"},
        {"stem": "conv7x7_s2_pool"},
        {"shortcut": "pad"},
        {"block": "bottleneck", "shortcut": "pad"},
        {"block": "bottleneck", "groups": 2, "width_per_group": 32},
    ],
    ids=str,
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


def test_a_shortcut_is_where_the_shape_changes() -> None:
    def shortcuts(block: str) -> list[list[bool]]:
        model = create_model(dataclasses.replace(SMALL, block=block), num_classes=2)
        return [[each.shortcut is not None for each in stage.blocks] for stage in model.stages]

    assert shortcuts("basic") == [[False], [True, False]]
    # Four times as wide from the first block on.
    assert shortcuts("bottleneck") == [[True], [True, False]]


@pytest.mark.parametrize(("stem", "first"), [("conv7x7_s2_pool", 4), ("conv3x3_s1", 1), ("conv3x3_s2", 2)])
def test_features_of_an_image_that_is_not_square(stem: str, first: int) -> None:
    def run():
        return create_model("resnet18", num_classes=3, stem=stem).features(jnp.zeros((2, 64, 96, 3)))

    expected = [(2, 64 // (first * 2**i), 96 // (first * 2**i), 64 * 2**i) for i in range(4)]
    assert [m.shape for m in jax.eval_shape(run)] == expected


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model = create_model("resnet18", num_classes=5, width=2, stem=stem)
    smallest = {"conv7x7_s2_pool": 32, "conv3x3_s1": 8, "conv3x3_s2": 16}[stem]

    def run(side):
        return jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, side, 2 * smallest, 3), jnp.float32))

    assert run(smallest)[-1].shape == (1, 1, 2, 16)
    with pytest.raises(UserError, match=f"works is {smallest}x{smallest}; .* choose the stem 'conv3x3_s1'"):
        run(smallest - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "basik"}, "block='basik': unknown; did you mean 'basic'? allowed: basic, bottleneck"),
        ({"stem": "patch4"}, "stem='patch4': unknown; allowed: conv7x7_s2_pool, conv3x3_s1, conv3x3_s2"),
        ({"depths": ()}, "depths=(): must be positive numbers, one for each stage"),
        ({"depths": (2, 0)}, "depths=(2, 0): must be positive numbers, one for each stage"),
        ({"width": 0}, "width=0: must be 1 or more"),
        ({"shortcut": "padded"}, "shortcut='padded': unknown; did you mean 'pad'? allowed: projection, pad"),
        ({"groups": 2}, "groups=2: must be 1 with block=basic"),
        ({"width_per_group": 4}, "width_per_group=4: must be 64 with block=basic"),
        ({"block": "bottleneck", "groups": 0}, "groups=0: must be 1 or more"),
        (
            {"block": "bottleneck", "width": 16, "width_per_group": 3},
            "width_per_group=3: must be 4 or more (64 over width)",
        ),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["resnet18"], **changes)
