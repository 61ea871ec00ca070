"""MobileNetV2 and EfficientNet: their scaling, their strides, and what is refused.

`test_models_torch` compares the networks.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from convnext_jax.errors import UserError
from convnext_jax.layers.inverted_residual import round_channels
from convnext_jax.models import MODELS, abstract_model, count_parameters, create_model


# Counted in torchvision's, with 1,000 classes.
@pytest.mark.parametrize(("multiplier", "count"), [(0.5, 1_968_680), (1.4, 6_108_776)])
def test_mobilenets_of_other_widths(multiplier: float, count: int) -> None:
    model = abstract_model(lambda: create_model("mobilenet_v2", num_classes=1000, width_multiplier=multiplier))
    assert count_parameters(model.params) == count


@pytest.mark.parametrize(("channels", "expected"), [(1, 8), (12, 16), (16 * 0.35, 8), (24 * 0.75, 24), (32 * 1.4, 48)])
def test_widths_are_multiples_of_8_and_lose_a_tenth_at_most(channels: float, expected: int) -> None:
    assert round_channels(channels) == expected


@pytest.mark.parametrize(
    ("name", "strides", "dims"),
    [
        ("mobilenet_v2", (2, 4, 8, 16, 32), (16, 24, 32, 96, 320)),
        ("mobilenet_v2_small_stem", (1, 1, 2, 4, 8), (16, 24, 32, 96, 320)),
        ("efficientnet_b0", (2, 4, 8, 16, 32), (16, 24, 40, 112, 320)),
        ("efficientnet_b0_small_stem", (1, 2, 4, 8, 16), (16, 24, 40, 112, 320)),
        ("efficientnet_b7", (2, 4, 8, 16, 32), (32, 48, 80, 224, 640)),
    ],
)
def test_features_have_a_map_for_each_resolution(name: str, strides: tuple[int, ...], dims: tuple[int, ...]) -> None:
    maps = jax.eval_shape(lambda: create_model(name, num_classes=3).features(jnp.zeros((2, 64, 96, 3))))
    assert [m.shape for m in maps] == [(2, 64 // s, 96 // s, d) for s, d in zip(strides, dims, strict=True)]


def test_depth_is_rounded_up_in_each_row() -> None:
    model = abstract_model(lambda: create_model("efficientnet_b3", num_classes=3)).merged()
    assert [len(stage.blocks) for stage in model.stages] == [2, 3, 3, 5 + 5, 6 + 2]


def test_stochastic_depth_drops_where_there_is_a_residual() -> None:
    model = abstract_model(lambda: create_model("mobilenet_v2", num_classes=3, drop_path=0.16)).merged()
    # 17 blocks, of which the first of each width has none.
    kept = [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    assert model.drop_rates() == pytest.approx([0.01 * number for number in kept])


def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works() -> None:
    with pytest.raises(
        UserError, match=r"31x64 pixels .* works is 32x32; enlarge them or choose strides with fewer 2s"
    ):
        create_model("mobilenet_v2", num_classes=3, width_multiplier=0.1)(jnp.zeros((1, 31, 64, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_multiplier": 0.0}, "width_multiplier=0.0: must be a positive number"),
        ({"depth_multiplier": float("nan")}, "depth_multiplier=nan: must be a positive number"),
        (
            {"strides": (2, 2, 2, 2, 2, 2)},
            "strides=(2, 2, 2, 2, 2, 2): must be up to 5 times 1 or 2: of the stem and of the stages after the first",
        ),
        ({"strides": (2, 3)}, "strides=(2, 3): must be up to 5 times 1 or 2"),
        ({"strides": ()}, "strides=(): must be up to 5 times 1 or 2"),
        ({"momentum": 0.0}, "momentum=0.0: must be in (0, 1]"),
        ({"epsilon": 0.0}, "epsilon=0.0: must be a positive number"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["efficientnet_b0"], **changes)
