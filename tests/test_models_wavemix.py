"""WaveMix-Lite: images that its transform cannot halve, and other refusals."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model


@pytest.mark.parametrize(
    ("stem", "size", "message"),
    [
        ("conv3x3_s1", (1, 32), "images of 1x32 pixels are too small for this network: the smallest that works is 2x2"),
        ("conv3x3_s1", (32, 33), "images of 32x33 pixels become a map of 32x33, .* sides that are multiples of 2$"),
        ("conv3x3_s2", (36, 32), "images of 36x32 pixels become a map of 9x8, .* sides that are multiples of 8$"),
        ("patch4", (64, 60), "images of 64x60 pixels become a map of 16x15, .* sides that are multiples of 8$"),
    ],
)
def test_a_map_of_an_odd_side_is_refused(stem: str, size: tuple[int, int], message: str) -> None:
    architecture = dataclasses.replace(MODELS["wavemix_lite_64_6"], stem=stem)
    architecture.check_image_size(64, 64)
    with pytest.raises(UserError, match=message):
        architecture.check_image_size(*size)


@pytest.mark.parametrize(("stem", "stride"), [("conv3x3_s1", 1), ("conv3x3_s2", 4), ("patch4", 4)])
def test_maps_keep_the_size_that_the_stem_gives(stem: str, stride: int) -> None:
    model = create_model("wavemix_lite_64_6", num_classes=2, dim=8, stem=stem)
    maps = jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32))
    assert [m.shape for m in maps] == [(1, 16 // stride, 24 // stride, 8)] * 4
    assert [len(stage.blocks) for stage in model.stages] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": "patch2"}, "stem='patch2': unknown; did you mean 'patch4'? allowed: conv3x3_s1, conv3x3_s2, patch4"),
        ({"dim": 6}, "dim=6: must be a multiple of 4"),
        ({"dim": 0}, "dim=0: must be a multiple of 4"),
        ({"depth": 3}, "depth=3: must be 4 or more"),
        ({"expansion": 0}, "expansion=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["wavemix_lite_64_6"], **changes)
