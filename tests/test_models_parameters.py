"""Models as plain trees of parameters, and models before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import TINY
from tiny import tiny_model

from convnext_jax.layers.parameters import Role
from convnext_jax.models import abstract_model, batch_stats_of, count_parameters, create_model, merge_model, split_model
from convnext_jax.models.parameters import flat, nested, roles_of


@pytest.fixture(scope="module")
def atto():
    return create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.1)


def test_parameters_are_a_nested_dict_with_string_keys_and_the_field_s_names(atto) -> None:
    paths = flat(split_model(atto)[1])
    assert {str(leaf.dtype) for leaf in paths.values()} == {"float32"}
    assert not any(leaf.weak_type for leaf in paths.values())
    shapes = {
        "stem/conv/kernel": (2, 2, 3, 40),
        "stem/norm/scale": (40,),
        "stages/0/blocks/0/depthwise/kernel": (7, 7, 1, 40),
        "stages/0/blocks/1/expand/kernel": (40, 160),
        "stages/2/downsample/norm/bias": (80,),
        "stages/2/downsample/conv/kernel": (2, 2, 80, 160),
        "stages/2/blocks/5/project/bias": (160,),
        "stages/3/blocks/1/layer_scale": (320,),
        "norm/scale": (320,),
        "head/kernel": (320, 10),
    }
    assert {path: paths[path].shape for path in shapes} == shapes
    assert "stages/0/downsample/conv/kernel" not in paths


def test_merge_undoes_split_inside_jit(atto) -> None:
    definition, params, _ = split_model(atto)
    again = split_model(merge_model(definition, params))[1]
    jax.tree.map(np.testing.assert_array_equal, params, again)
    shape = jax.eval_shape(lambda p: merge_model(definition, p)(jnp.zeros((3, 16, 16, 3))), params).shape
    assert shape == (3, 10)


def test_merge_takes_the_parameters_and_statistics_that_it_is_given() -> None:
    definition, params, batch_stats = split_model(tiny_model(norm="batch"))
    params["head"]["bias"] = jnp.arange(4.0)
    batch_stats["norm"]["mean"] = jnp.arange(16.0)
    model = merge_model(definition, params, batch_stats)
    np.testing.assert_array_equal(model.head.bias[...], np.arange(4.0))
    jax.tree.map(np.testing.assert_array_equal, batch_stats_of(model), batch_stats)


def test_definitions_of_equal_models_are_equal_static_arguments(atto) -> None:
    first, params, _ = split_model(atto)
    same, _, _ = split_model(create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.1, seed=3))
    other, _, _ = split_model(create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.2))
    traces = []

    def mean(definition, params):
        traces.append(definition)
        return merge_model(definition, params).head.bias[...].mean()

    jitted = jax.jit(mean, static_argnums=0)
    jitted(first, params), jitted(same, params)
    assert len(traces) == 1 and first == same and hash(first) == hash(same)
    jitted(other, params)
    assert len(traces) == 2 and first != other


def test_an_abstract_model_has_the_shapes_of_the_model() -> None:
    def create():
        return tiny_model(norm="batch")

    found, model = abstract_model(create), create()
    definition, params, batch_stats = split_model(model)
    assert found.definition == definition
    for shapes, arrays in ((found.params, params), (found.batch_stats, batch_stats)):
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), arrays
        )
    assert found.roles == roles_of(model)
    assert count_parameters(found.params) == count_parameters(params)


def test_an_abstract_model_answers_what_needs_no_arithmetic() -> None:
    merged = abstract_model(tiny_model).merged()
    assert merged.architecture == TINY and list(merged.parts()) == [
        "stem",
        *(f"stage {i}" for i in range(1, 5)),
        "head",
    ]


def test_roles_of_a_block() -> None:
    roles = {
        path.removeprefix("stages/1/blocks/0/"): role
        for path, role in flat(roles_of(tiny_model(grn=True))).items()
        if path.startswith("stages/1/blocks/0/")
    }
    assert roles == {
        "depthwise/kernel": Role.DEPTHWISE,
        "depthwise/bias": Role.BIAS,
        "norm/scale": Role.NORM,
        "norm/bias": Role.NORM,
        "expand/kernel": Role.LINEAR,
        "expand/bias": Role.BIAS,
        "grn/gamma": Role.RESPONSE_NORM,
        "grn/beta": Role.RESPONSE_NORM,
        "project/kernel": Role.LINEAR,
        "project/bias": Role.BIAS,
        "layer_scale": Role.LAYER_SCALE,
    }


def test_flat_and_nested_are_inverse(atto) -> None:
    params = split_model(atto)[1]
    jax.tree.map(np.testing.assert_array_equal, nested(flat(params)), params)
