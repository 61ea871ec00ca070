"""Compact Transformers: positions, tokens, what the head reads, and what is refused."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import COMPACT_TRANSFORMER as SMALL
from numpy_layers import images, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.evaluate.grad_cam import explainable_stage
from convnext_jax.layers.positions import resize_positions, sinusoidal_positions
from convnext_jax.models import MODELS, abstract_model, count_parameters, create_model, merge_model, split_model
from convnext_jax.models.parameters import flat
from convnext_jax.models.torch_import import export_state_dict, import_state_dict


def test_sinusoidal_positions_are_no_parameters_and_are_added_like_learned_ones() -> None:
    learned, _ = with_random_weights(create_model(SMALL, num_classes=3))
    architecture = dataclasses.replace(SMALL, positions="sinusoidal")
    sinusoidal = abstract_model(lambda: create_model(architecture, num_classes=3))
    definition, params, _ = split_model(learned)
    table = params["stem"].pop("position")
    assert flat(params).keys() == flat(sinusoidal.params).keys()
    x = images(2, 16, 16, 3)
    found = jax.jit(merge_model(sinusoidal.definition, params))(x)
    params["stem"]["position"] = jnp.asarray(sinusoidal_positions(*table.shape))
    np.testing.assert_allclose(found, jax.jit(merge_model(definition, params))(x), rtol=1e-5, atol=1e-5)


def test_without_learned_positions_the_count_of_cct_6_is_the_paper_s() -> None:
    model = abstract_model(lambda: create_model("cct_6_3x1", num_classes=10, positions="sinusoidal"))
    assert count_parameters(model.params) == 3_168_267  # 3.17 million in table 2


def test_the_positions_in_a_checkpoint_with_sinusoidal_ones_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "small", dataclasses.replace(SMALL, positions="sinusoidal"))
    model = abstract_model(lambda: create_model("small", num_classes=3))
    params = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat(model.params).items()}
    state = export_state_dict(MODELS["small"], "SHI-Labs", params)
    imported = import_state_dict(state | {"classifier.positional_emb": np.zeros((1, 64, 8))}, "small")
    assert flat(imported.params).keys() == params.keys()
    monkeypatch.setitem(MODELS, "small", SMALL)
    with pytest.raises(UserError, match="missing: classifier.positional_emb$"):
        import_state_dict(state, "small")


@pytest.mark.parametrize(
    ("name", "image", "grid"),
    [("vit_lite_7", 35, 8), ("cct_7_3x1", 33, 17), ("cct_7_3x2", 32, 8), ("cct_14_7x2", 224, 14), ("cct_7_7x2", 65, 5)],
)
def test_the_grid_of_the_tokens(name: str, image: int, grid: int) -> None:
    maps = jax.eval_shape(lambda: create_model(name, num_classes=3).features(jnp.zeros((1, image, 2 * image, 3))))
    across = MODELS[name].grid(image, 2 * image)[1]
    assert [m.shape[1:3] for m in maps] == [(grid, across)] * 4 and across in (2 * grid, 2 * grid - 1, 2 * grid + 1)


@pytest.mark.parametrize(("pool", "last"), [("sequence", 4), ("class_token", 3)])
def test_a_class_token_is_explained_by_the_stage_before_the_last(pool: str, last: int) -> None:
    model = create_model(dataclasses.replace(SMALL, pool=pool), num_classes=3)
    assert explainable_stage(model, (16, 16, 3)) == last


@pytest.mark.parametrize("pool", ["sequence", "class_token"])
def test_a_table_of_positions_is_adapted_to_another_image_size(pool: str) -> None:
    architecture = dataclasses.replace(SMALL, pool=pool, image_size=32)
    others = 1 if pool == "class_token" else 0
    table = images(others + 64, 8)
    found = architecture.adapt_weight("stem/position", table, (others + 256, 8))
    np.testing.assert_allclose(found, resize_positions(jnp.asarray(table), (16, 16), others=others), rtol=1e-5)
    np.testing.assert_array_equal(found[:others], table[:others])
    assert abs(float(found[others:].mean() - table[others:].mean())) < 0.02


@pytest.mark.parametrize(("name", "smallest"), [("vit_lite_7", 4), ("cct_7_3x2", 4), ("cct_14_7x2", 16)])
def test_an_image_too_small_is_refused_with_the_smallest_that_works(name: str, smallest: int) -> None:
    architecture = MODELS[name]
    architecture.check_image_size(smallest, smallest)
    with pytest.raises(UserError, match=f"works is {smallest}x{smallest}; enlarge them or choose a kernel_size below"):
        architecture.check_image_size(smallest - 1, smallest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, "dim=0: must be 1 or more"),
        ({"heads": 3}, "heads=3: must be a divisor of dim=256"),
        ({"depth": 3}, "depth=3: must be 4 or more"),
        ({"convolutions": -1}, "convolutions=-1: must be 0 or more"),
        ({"kernel_size": 4}, "kernel_size=4: must be 3 or more and odd"),
        ({"kernel_size": 1}, "kernel_size=1: must be 3 or more and odd"),
        ({"pool": "mean"}, "pool='mean': unknown; allowed: class_token, sequence"),
        ({"positions": "sine"}, "positions='sine': unknown; allowed: learned, sinusoidal"),
        ({"convolutions": 0, "kernel_size": 40}, "image_size=32: must be 40 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["cct_7_3x1"], **changes)
