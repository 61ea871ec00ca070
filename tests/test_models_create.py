"""Models by name, their parameters as plain trees, their initial values."""

import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convnext_jax.models.architectures import ARCHITECTURES, STEMS, configured_architecture
from convnext_jax.models.from_config import model_from_config

from convnext_jax.config import ModelConfig
from convnext_jax.errors import UserError
from convnext_jax.models import count_parameters, create_model, list_models, merge_model, split_model

# With a head of 1,000 classes, to the last parameter; published as 3.7, 5.2, 9.05, 15.6, 28.6, 50.2, 88.6, 197.8 and
# 350.2 million; V2 as 3.7, 5.2, 9.1, 15.6, 28.6, 89, 198 and 660; isotropic as 22, 87 and 306.
COUNTS = {
    "convnext_atto": 3_695_520,
    "convnext_femto": 5_217_784,
    "convnext_pico": 9_045_672,
    "convnext_nano": 15_593_560,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    "convnext_xlarge": 350_196_968,
    "convnextv2_atto": 3_708_400,
    "convnextv2_femto": 5_233_240,
    "convnextv2_pico": 9_066_280,
    "convnextv2_nano": 15_623_800,
    "convnextv2_tiny": 28_635_496,
    "convnextv2_base": 88_717_800,
    "convnextv2_large": 197_956_840,
    "convnextv2_huge": 660_289_640,
    "convnext_isotropic_small": 22_308_712,
    "convnext_isotropic_base": 87_083_752,
    "convnext_isotropic_large": 305_942_504,
    "convnext_multiscale": 13_158_312,
    "convnext_swin_mlp": 28_747_888,
}


def variant(name: str, **changes):
    return dataclasses.replace(ARCHITECTURES[name], **changes)


def abstract_params(name: str, **options):
    return jax.eval_shape(lambda: split_model(create_model(name, num_classes=1000, **options))[1])


@pytest.mark.parametrize("name", list_models())
def test_parameter_counts(name: str) -> None:
    assert count_parameters(abstract_params(name)) == COUNTS[name]


def test_list_models_takes_a_pattern() -> None:
    assert list_models() == list(COUNTS)
    assert list_models("convnext_[lx]*") == ["convnext_large", "convnext_xlarge"]
    assert list_models("resnet*") == []


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ["convnext_atto", "convnext_nano"])
def test_every_stem_goes_with_a_size(name: str, stem: str) -> None:
    def run():
        return create_model(name, num_classes=7, stem=stem, drop_path=0.1)(
            jnp.zeros((2, 128, 128, 3)), key=jax.random.key(0)
        )

    assert jax.eval_shape(run).shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "convnext_tyni"}, "unknown model 'convnext_tyni': did you mean 'convnext_tiny'?"),
        ({"stem": "patch3"}, "unknown stem 'patch3': did you mean 'patch"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be in [0, 1)"),
        ({"drop_path": -0.1}, "drop_path is -0.1; it must be in [0, 1)"),
        ({"num_classes": 0}, "num_classes is 0; it must be 1 or more"),
        ({"in_channels": 0}, "in_channels is 0; it must be 1 or more"),
        ({"initialization": "fan"}, "initialization is fan; it must be one of normal, fan_in"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
    ],
)
def test_bad_values_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        create_model(**({"name": "convnext_atto", "num_classes": 10} | options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_scale": -1e-6}, "layer_scale is -1e-06; it must be 0 (left out) or a positive number"),
        ({"kernel_size": 4}, "kernel_size is 4; it must be odd and positive"),
        ({"expansion": 0}, "expansion is 0; it must be 1 or more"),
        ({"activation": "gelo"}, "unknown activation 'gelo': did you mean 'gelu'?"),
        ({"convolution": "depthwize"}, "unknown convolution 'depthwize': did you mean 'depthwise'?"),
        ({"depths": (2, 2, 6)}, "depths, dims is ((2, 2, 6), (40, 80, 160, 320)); it must be four positive numbers"),
        ({"block": "multiscale", "grn": True}, "grn is True; it must be False with block='multiscale'"),
        ({"block": "multiscale_a", "dims": (6, 8, 8, 8)}, "dims is (6, 8, 8, 8); it must be multiples of 4 with block"),
        ({"swin_mlp_stages": (0,)}, "swin_mlp_stages is (0,); it must be some of 1, 2, 3, 4"),
        ({"norm": "group"}, "unknown norm 'group': "),
        ({"isotropic": True}, "dims is (40, 80, 160, 320); it must be the same in every stage of an isotropic network"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        variant("convnext_atto", **changes)


def test_the_tables_load_without_jax() -> None:
    code = "import sys, convnext_jax.models.architectures; print('jax' in sys.modules, 'flax' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


# --- the plain tree of parameters


@pytest.fixture(scope="module")
def atto():
    return create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.1)


def test_parameters_are_a_nested_dict_with_string_keys_and_the_field_s_names(atto) -> None:
    _, params, _ = split_model(atto)
    paths = {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
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


def test_merge_takes_the_parameters_it_is_given(atto) -> None:
    definition, params, _ = split_model(atto)
    params["head"]["bias"] = jnp.arange(10.0)
    np.testing.assert_array_equal(merge_model(definition, params).head.bias[...], np.arange(10.0))


def test_definitions_of_equal_models_are_equal_static_arguments(atto) -> None:
    first, params, _ = split_model(atto)
    same, _, _ = split_model(create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.1, seed=3))
    other, _, _ = split_model(create_model("convnext_atto", num_classes=10, stem="patch2", drop_path=0.2))
    traces = []

    @jax.jit
    def unused(params):
        return params

    def mean(definition, params):
        traces.append(definition)
        return merge_model(definition, params).head.bias[...].mean()

    jitted = jax.jit(mean, static_argnums=0)
    jitted(first, params), jitted(same, params)
    assert len(traces) == 1 and first == same and hash(first) == hash(same)
    jitted(other, params)
    assert len(traces) == 2 and first != other


# --- initial values


def test_kernels_start_from_a_plain_normal_of_deviation_0_02(atto) -> None:
    _, params, _ = split_model(atto)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        values, name = np.asarray(leaf, np.float64), path[-1].key
        if name == "kernel":
            # Five standard errors.
            assert abs(values.mean()) < 5 * 0.02 / values.size**0.5, path
            assert abs(values.std() / 0.02 - 1) < 5 / (2 * values.size) ** 0.5, path
        else:
            assert np.all(values == {"bias": 0.0, "scale": 1.0, "layer_scale": np.float32(1e-6)}[name]), path
    expand = np.asarray(params["stages"]["3"]["blocks"]["0"]["expand"]["kernel"])
    # A normal cut at two deviations would end here.
    assert 0.04 < np.abs(expand).max() < 0.16


def test_initial_values_are_a_function_of_the_seed_and_differ_between_layers(atto) -> None:
    def kernels(model):
        blocks = split_model(model)[1]["stages"]["2"]["blocks"]
        return [np.asarray(blocks[i]["expand"]["kernel"]) for i in sorted(blocks)]

    options = {"num_classes": 10, "stem": "patch2", "drop_path": 0.1}
    again, other = (kernels(create_model("convnext_atto", seed=seed, **options)) for seed in (0, 1))
    first = kernels(atto)
    assert len({k.tobytes() for k in first}) == ARCHITECTURES["convnext_atto"].depths[2]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_layer_scale_starts_where_it_is_told() -> None:
    _, params, _ = split_model(create_model(variant("convnext_atto", layer_scale=0.1), num_classes=10))
    np.testing.assert_array_equal(params["stages"]["1"]["blocks"]["0"]["layer_scale"], np.full(80, 0.1, np.float32))


def test_fan_in_draws_by_the_number_of_inputs() -> None:
    _, params, _ = split_model(create_model("convnext_atto", num_classes=10, initialization="fan_in"))
    block = params["stages"]["2"]["blocks"]["0"]
    for kernel, inputs in (
        (block["depthwise"]["kernel"], 49),
        (block["expand"]["kernel"], 160),
        (block["project"]["kernel"], 640),
        (params["stem"]["conv"]["kernel"], 48),
        (params["head"]["kernel"], 320),
    ):
        assert abs(np.std(kernel) * inputs**0.5 - 1) < 5 / (2 * kernel.size) ** 0.5


def test_a_configuration_changes_what_it_sets_and_nothing_else() -> None:
    config = ModelConfig(name="convnextv2_atto", depths=(1, 1, 2, 1), kernel_size=5)
    expected = dataclasses.replace(ARCHITECTURES["convnextv2_atto"], depths=(1, 1, 2, 1), kernel_size=5)
    assert configured_architecture(config) == expected
    model = model_from_config(config, num_classes=3, dtype="float32")
    assert model.architecture == expected


def test_a_config_sets_what_is_no_part_of_the_architecture():
    config = ModelConfig("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), dropout=0.25, remat=True)
    model = model_from_config(config, num_classes=3, dtype="float32")
    assert model.dropout == 0.25 and all(stage.remat for stage in model.stages)
