"""Networks by name: their sizes, their options, and what is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import COUNTS, SMALL_COUNTS

from convnext_jax.config import parse_experiment
from convnext_jax.errors import UserError
from convnext_jax.models import (
    MODELS,
    abstract_model,
    count_parameters,
    create_model,
    list_models,
    split_model,
)
from convnext_jax.models.convnext import STEMS


@pytest.mark.parametrize("name", list_models())
def test_parameter_counts(name: str) -> None:
    num_classes, count = (1000, COUNTS[name]) if name in COUNTS else (10, SMALL_COUNTS[name])
    model = abstract_model(lambda: create_model(name, num_classes=num_classes))
    assert count_parameters(model.params) == count


def test_list_models_takes_a_pattern() -> None:
    assert set(list_models()) == COUNTS.keys() | SMALL_COUNTS.keys()
    assert list_models("convnext_[lx]*") == ["convnext_large", "convnext_xlarge"]
    assert list_models("resnet??") == ["resnet18", "resnet34", "resnet50", "resnet20", "resnet56"]
    assert list_models("mobilnet*") == []


@pytest.mark.parametrize(
    ("name", "strides", "dims"),
    [
        ("convnext_atto", (4, 8, 16, 32), (40, 80, 160, 320)),
        ("convnextv2_atto", (4, 8, 16, 32), (40, 80, 160, 320)),
        ("convnext_isotropic_small", (16,) * 4, (384,) * 4),
        ("convnext_multiscale", (4, 8, 16, 32), (64, 128, 320, 512)),
        ("convnext_swin_mlp", (4, 8, 16, 32), (96, 192, 384, 768)),
        ("resnet18", (4, 8, 16, 32), (64, 128, 256, 512)),
        ("resnet50", (4, 8, 16, 32), (256, 512, 1024, 2048)),
        ("resnet18_small_stem", (1, 2, 4, 8), (64, 128, 256, 512)),
        ("resnet20", (1, 2, 4), (16, 32, 64)),
        ("resnext50_32x4d", (4, 8, 16, 32), (256, 512, 1024, 2048)),
        ("vit_tiny_patch16", (16,) * 4, (192,) * 4),
        ("vit_tiny_patch4", (4,) * 4, (192,) * 4),
        ("swin_tiny", (4, 8, 16, 32), (96, 192, 384, 768)),
        ("swin_3stage_patch2_window4", (2, 4, 8), (96, 192, 384)),
        ("vit_lite_6", (4,) * 4, (256,) * 4),
        ("cct_7_3x2", (4,) * 4, (256,) * 4),
        ("cvt_13", (4, 8, 16), (64, 192, 384)),
        ("cvt_13_small_stem", (2, 4, 8), (64, 192, 384)),
        ("wavemix_lite_64_6", (1,) * 4, (64,) * 4),
        ("wavemix_lite_192_16", (4,) * 4, (192,) * 4),
    ],
)
def test_features_of_an_image_that_is_not_square(name: str, strides: tuple[int, ...], dims: tuple[int, ...]) -> None:
    maps = jax.eval_shape(lambda: create_model(name, num_classes=3).features(jnp.zeros((2, 64, 96, 3))))
    assert [m.shape for m in maps] == [(2, 64 // s, 96 // s, d) for s, d in zip(strides, dims, strict=True)]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ["convnext_atto", "convnext_nano"])
def test_every_stem_goes_with_a_size(name: str, stem: str) -> None:
    def run():
        model = create_model(name, num_classes=7, stem=stem, drop_path=0.1)
        return model(jnp.zeros((2, 128, 128, 3)), key=jax.random.key(0))

    assert jax.eval_shape(run).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "convnext_tyni"}, "unknown model 'convnext_tyni': did you mean 'convnext_tiny'?"),
        ({"name": "resnet19"}, "unknown model 'resnet19': did you mean 'resnet18'?"),
        ({"stem": "patch3"}, "stem='patch3': unknown; did you mean 'patch"),
        ({"kernel": 3}, "kernel: convnext_atto has no such field; did you mean 'kernel_size'?"),
        ({"name": "resnet18", "dims": (8,)}, "dims: resnet18 has no such field; allowed: depths, block, width, stem"),
        ({"drop_path": 1.0}, "drop_path=1.0: must be in [0, 1)"),
        ({"drop_path": -0.1}, "drop_path=-0.1: must be in [0, 1)"),
        ({"dropout": 1.0}, "dropout=1.0: must be in [0, 1)"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"initialization": "fan"}, "initialization='fan': must be one of reference, normal, fan_in, fan_out"),
        ({"dtype": "float16"}, "dtype='float16': must be one of auto, float32, bfloat16"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
    ],
)
def test_bad_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        create_model(**({"name": "convnext_atto", "num_classes": 10} | options))


def test_a_name_with_fields_is_the_replaced_architecture() -> None:
    model = abstract_model(lambda: create_model("convnextv2_atto", num_classes=3, depths=(1, 1, 2, 1), kernel_size=5))
    expected = dataclasses.replace(MODELS["convnextv2_atto"], depths=(1, 1, 2, 1), kernel_size=5)
    assert model.merged().architecture == expected
    again = abstract_model(lambda: create_model(MODELS["convnextv2_atto"], num_classes=3, depths=(1, 1, 2, 1)))
    assert again.merged().architecture == dataclasses.replace(MODELS["convnextv2_atto"], depths=(1, 1, 2, 1))


def test_a_configuration_changes_what_it_sets_and_nothing_else() -> None:
    config = {"model": {"name": "convnextv2_atto", "depths": (1, 1, 2, 1), "kernel_size": 5}}
    expected = dataclasses.replace(MODELS["convnextv2_atto"], depths=(1, 1, 2, 1), kernel_size=5)
    assert parse_experiment(config).model.architecture == expected


def test_a_seed_decides_every_parameter() -> None:
    def draw(seed: int) -> dict:
        return split_model(create_model("resnet18", num_classes=3, width=8, seed=seed))[1]

    jax.tree.map(np.testing.assert_array_equal, draw(3), draw(3))
    kernels = [np.asarray(draw(seed)["stem"]["conv"]["kernel"]) for seed in (3, 4)]
    assert not np.array_equal(*kernels)
