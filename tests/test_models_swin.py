"""Swin Transformers: what is refused, the shapes of the maps, and what a table of positions is adapted to."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SWIN
from numpy_layers import images

from convnext_jax.errors import UserError
from convnext_jax.layers.attention import resize_relative_positions
from convnext_jax.models import MODELS, create_model


def test_every_second_block_is_shifted() -> None:
    model = create_model(dataclasses.replace(SWIN, depths=(3, 2)), num_classes=2)
    assert [[block.attention.shifted for block in stage.blocks] for stage in model.stages] == [
        [False, True, False],
        [False, True],
    ]


def test_maps_of_an_odd_side_are_halved_upwards() -> None:
    maps = jax.eval_shape(lambda: create_model("swin_tiny", num_classes=3).features(jnp.zeros((1, 99, 32, 3))))
    assert [m.shape for m in maps] == [(1, 24, 8, 96), (1, 12, 4, 192), (1, 6, 2, 384), (1, 3, 1, 768)]


@pytest.mark.parametrize(("name", "smallest"), [("swin_tiny", 32), ("swin_3stage_patch2_window4", 8)])
def test_an_image_too_small_is_refused_with_the_smallest_that_works(name: str, smallest: int) -> None:
    architecture = MODELS[name]
    architecture.check_image_size(smallest, smallest)
    with pytest.raises(UserError, match=f"works is {smallest}x{smallest}; enlarge them or choose a patch_size below"):
        architecture.check_image_size(smallest - 1, smallest)


def test_a_table_of_positions_is_adapted_to_another_window() -> None:
    table, path = images(169, 3), "stages/0/blocks/0/attention/position/table"
    found = MODELS["swin_tiny_patch2_window4"].adapt_weight(path, table, (49, 3))
    assert found is not None and found.shape == (49, 3)
    np.testing.assert_allclose(found, resize_relative_positions(jnp.asarray(table), 4), rtol=1e-5)
    assert MODELS["swin_tiny_patch2_window4"].adapt_weight(path, images(169, 6), (49, 3)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim=0: must be 1 or more"),
        ({"window": 0}, "window=0: must be 1 or more"),
        ({"depths": (2, 0)}, "depths=(2, 0): must be positive numbers, one for each stage"),
        (
            {"heads": (3, 6, 12)},
            "heads=(3, 6, 12): must be divisors of the channels of the 4 stages, 96, 192, 384, 768",
        ),
        ({"heads": (5, 6, 12, 24)}, "heads=(5, 6, 12, 24): must be divisors of the channels of the 4 stages"),
        ({"heads": (0, 6, 12, 24)}, "heads=(0, 6, 12, 24): must be divisors of the channels of the 4 stages"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["swin_tiny"], **changes)
