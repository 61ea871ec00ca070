"""VGG: its maps, its numbered layers in PyTorch, and what is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model
from convnext_jax.models.vgg import VGGArchitecture

SMALL = VGGArchitecture((1, 2, 1), (2, 3, 4), hidden=0)


def test_a_stage_may_be_the_first_convolution_alone() -> None:
    def run():
        return create_model(SMALL, num_classes=3).features(jnp.zeros((2, 16, 24, 3)))

    assert [m.shape for m in jax.eval_shape(run)] == [(2, 16, 24, 2), (2, 8, 12, 3), (2, 4, 6, 4)]


# From torchvision's documentation of its state dicts: layers are numbered through, pools and ReLUs too.
@pytest.mark.parametrize(
    ("changes", "path", "name"),
    [
        ({}, "stem/conv/bias", "features.0.bias"),
        ({}, "stages/0/blocks/0/conv/kernel", "features.2.weight"),
        ({}, "stages/1/blocks/0/conv/kernel", "features.5.weight"),
        ({}, "stages/4/blocks/2/conv/kernel", "features.28.weight"),
        ({"norm": "batch"}, "stem/norm/scale", "features.1.weight"),
        ({"norm": "batch"}, "stages/4/blocks/2/conv/bias", "features.40.bias"),
        ({"norm": "batch"}, "stages/4/blocks/2/norm/variance", "features.41.running_var"),
        ({}, "hidden/second/kernel", "classifier.3.weight"),
        ({"hidden": 0}, "head/kernel", "classifier.weight"),
    ],
)
def test_layers_are_numbered_through_in_pytorch(changes: dict, path: str, name: str) -> None:
    architecture = dataclasses.replace(MODELS["vgg16"], **changes)
    assert architecture.torch_name(path, *architecture.torch_layouts) == name


def test_an_image_that_leaves_no_pixel_is_refused() -> None:
    model = create_model(SMALL, num_classes=5)
    assert jax.eval_shape(model, jnp.zeros((1, 8, 8, 3))).shape == (1, 5)
    with pytest.raises(
        UserError, match="7x8 pixels are too small .* works is 8x8; enlarge them or choose fewer stages"
    ):
        model(jnp.zeros((1, 7, 8, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "bach"}, "norm='bach': unknown; did you mean 'batch'? allowed: none, batch"),
        ({"depths": (2, 0, 3, 3, 3)}, "depths=(2, 0, 3, 3, 3): must be positive numbers, one for each stage"),
        ({"dims": (64, 128)}, "dims=(64, 128): must be 5 positive numbers, one for each stage of depths"),
        ({"hidden": -1}, "hidden=-1: must be 0 or more"),
        ({"pooled_size": 0}, "pooled_size=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["vgg16"], **changes)
