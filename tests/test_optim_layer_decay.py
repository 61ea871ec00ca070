"""Layer-wise decay: levels that cover every network, factors as the references have them, and their summary."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import EVERY_LAYER
from tiny import tiny_model

from convnext_jax.models import abstract_model, count_parameters, create_model
from convnext_jax.models.parameters import AbstractModel, flat
from convnext_jax.optim.layer_decay import decay_levels, scale_by_layer_decay
from convnext_jax.optim.summary import summarize_levels

KINDS = ("single", "grouped")


@functools.cache
def shapes(name: str) -> AbstractModel:
    return abstract_model(lambda: create_model(name, num_classes=10))


def factors(model: AbstractModel, decay: float, kind: str) -> dict[str, float]:
    return {path: level.factor for level in decay_levels(model, decay, kind) for path in level.paths}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVERY_LAYER)
def test_the_levels_cover_each_parameter_once_and_rise_to_the_head(name: str, kind: str) -> None:
    model = shapes(name)
    levels = decay_levels(model, 0.5, kind)
    covered = [path for level in levels for path in level.paths]
    assert sorted(covered) == sorted(flat(model.params))
    assert [level.factor for level in levels] == [0.5**distance for distance in reversed(range(len(levels)))]
    assert {"head/kernel", "head/bias"} <= set(levels[-1].paths)
    assert "stem/conv/kernel" in levels[0].paths


def place(path: str) -> tuple[str, int, int]:
    """What a parameter belongs to, and its stage and block, counted from 1 and from 0."""
    if found := re.match(r"stages/(\d+)/(?:blocks/(\d+)|(downsample))/", path):
        return ("downsample" if found[3] else "block"), int(found[1]) + 1, int(found[2] or 0)
    return ("stem" if path.startswith("stem/") else "head"), 0, 0


def grouped_factor(path: str, decay: float) -> float:
    """facebookresearch/ConvNeXt, optim_factory.py: `get_num_layer_for_convnext`, with 12 groups."""
    kind, stage, block = place(path)
    if kind == "stem":
        number = 0
    elif kind == "head":
        number = 13
    elif stage in (1, 2):
        number = stage
    elif stage == 3:
        number = 3 + block // 3
    else:
        number = 12
    return decay ** (13 - number)


def single_factor(path: str, decay: float, depths: tuple[int, ...]) -> float:
    """facebookresearch/ConvNeXt-V2, optim_factory.py: `get_num_layer_for_convnext_single`."""
    kind, stage, block = place(path)
    if kind == "head":
        number = sum(depths) + 1
    elif kind == "stem":
        number = 1
    else:
        number = sum(depths[: stage - 1]) + block + 1
    return decay ** (sum(depths) + 1 - number)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_small", "convnext_base"])
def test_the_factors_of_a_convnext_are_the_references(name: str) -> None:
    depths = (3, 3, 9 if name == "convnext_tiny" else 27, 3)
    paths = flat(shapes(name).params)
    grouped = {path: grouped_factor(path, 0.7) for path in paths}
    assert factors(shapes(name), 0.7, "grouped") == pytest.approx(grouped, rel=1e-9)
    single = {path: single_factor(path, 0.7, depths) for path in paths}
    assert factors(shapes(name), 0.7, "single") == pytest.approx(single, rel=1e-9)


def test_the_levels_of_a_vision_transformer_are_its_blocks() -> None:
    """As in BEiT and MAE: the embedding, the blocks, the head."""
    found = factors(shapes("vit_tiny_patch16"), 0.5, "single")
    assert found["stem/position"] == found["stem/class_token"] == 0.5**13
    assert found["stages/0/blocks/0/norm1/scale"] == 0.5**12
    assert found["stages/3/blocks/2/project/bias"] == 0.5
    assert found["norm/scale"] == found["head/kernel"] == 1.0


def test_updates_are_scaled_by_the_factors() -> None:
    model = abstract_model(tiny_model)
    transformation = scale_by_layer_decay(decay_levels(model, 0.5, "single"))
    updates = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), model.params)
    scaled, _ = jax.jit(lambda updates: transformation.update(updates, transformation.init(updates)))(updates)
    # Four stages of one block each.
    expected = {
        "head/kernel": 1.0,
        "norm/bias": 1.0,
        "stages/3/blocks/0/expand/kernel": 0.5,
        "stages/3/downsample/conv/kernel": 0.5,
        "stages/1/blocks/0/layer_scale": 0.125,
        "stages/0/blocks/0/depthwise/bias": 0.0625,
        "stem/conv/kernel": 0.0625,
        "stem/norm/scale": 0.0625,
    }
    found = {path: np.unique(leaf).tolist() for path, leaf in flat(scaled).items()}
    assert {path: found[path] for path in expected} == {path: [factor] for path, factor in expected.items()}


@pytest.mark.parametrize(
    ("kind", "layers", "lowest"),
    [
        ("single", ["stem, stage 1 block 1", "stage 1 block 2", "stage 2 downsampling, stage 2 block 1"], 0.9**12),
        ("grouped", ["stem", "stage 1 block 1, stage 1 block 2"], 0.9**13),
    ],
)
def test_the_summary_counts_every_parameter_once(kind: str, layers: list[str], lowest: float) -> None:
    model = shapes("convnext_atto")
    rows = summarize_levels(model, 0.9, kind)
    assert sum(row.parameters for row in rows) == count_parameters(model.params)
    assert sum(row.tensors for row in rows) == len(jax.tree.leaves(model.params))
    assert [set(row.layers.split(", ")) for row in rows[: len(layers)]] == [set(each.split(", ")) for each in layers]
    assert rows[0].factor == pytest.approx(lowest)
    assert (rows[-1].layers, rows[-1].factor) == ("head", 1.0)
