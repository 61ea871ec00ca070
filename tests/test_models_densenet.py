"""DenseNet against the paper in float64 NumPy, its memory with rematerialization, and what is refused."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import batch_norm, conv, images, linear, max_pool, relu, with_random_weights

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, batch_stats_of, create_model, merge_model, split_model
from convnext_jax.models.densenet import STEMS, DenseNetArchitecture

SMALL = DenseNetArchitecture((2, 1), growth_rate=3, stem_dim=4, stem="conv3x3_s1")


def reference_features(x: np.ndarray, params: Any, architecture: DenseNetArchitecture) -> list[np.ndarray]:
    size, stride, pools = STEMS[architecture.stem]
    x = conv(x, params["stem"]["conv"], stride, size // 2)
    x = max_pool(relu(batch_norm(x, params["stem"]["norm"])), 3, 2, padding=1) if pools else x
    maps = []
    for stage in params["stages"].values():
        if transition := stage.get("downsample"):
            x = conv(relu(batch_norm(x, transition["norm"])), transition["conv"])
            x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
            x = np.mean([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], 0)
        for layer in stage["blocks"].values():
            y = conv(relu(batch_norm(x, layer["norm1"])), layer["conv1"])
            y = conv(relu(batch_norm(y, layer["norm2"])), layer["conv2"], 1, 1)
            x = np.concatenate([x, y], -1)
        maps.append(x)
    return maps


@pytest.mark.parametrize(("stem", "side"), [("conv3x3_s1", (7, 10)), ("conv7x7_s2_pool", (20, 27))])
def test_logits_and_features_are_those_of_the_paper(stem: str, side: tuple[int, int]) -> None:
    architecture = dataclasses.replace(SMALL, stem=stem)
    model, params = with_random_weights(create_model(architecture, num_classes=5))
    x = images(2, *side, 3)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    expected = reference_features(x.astype(np.float64), params, architecture)
    for found, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    pooled = relu(batch_norm(expected[-1], params["norm"])).mean((1, 2))
    np.testing.assert_allclose(logits, linear(pooled, params["head"]), rtol=1e-4, atol=1e-5)


def test_rematerialization_changes_nothing_and_needs_less_than_half_of_the_memory() -> None:
    architecture = DenseNetArchitecture((4,), growth_rate=4, stem_dim=4, stem="conv3x3_s1")
    x, key = jnp.asarray(images(8, 16, 16, 3)), jax.random.key(0)

    def run(remat: bool) -> tuple[Any, int]:
        definition, params, batch_stats = split_model(create_model(architecture, num_classes=3, remat=remat))

        def loss(params: Any) -> tuple[jax.Array, Any]:
            model = merge_model(definition, params, batch_stats)
            return jnp.square(model(x, key=key)).sum(), batch_stats_of(model)

        compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()
        return compiled(params), compiled.memory_analysis().temp_size_in_bytes

    (plain, memory), (found, less) = run(False), run(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, plain)
    assert less < 0.5 * memory


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model = create_model("densenet121", num_classes=5, depths=(1, 1, 1, 1), stem=stem)
    smallest = {"conv7x7_s2_pool": 29, "conv3x3_s1": 8, "conv3x3_s2": 15}[stem]

    def run(side: int) -> tuple:
        return jax.eval_shape(model.features, jax.ShapeDtypeStruct((1, side, 64, 3), jnp.float32))

    assert run(smallest)[-1].shape[1] == 1
    with pytest.raises(
        UserError, match=f"works is {smallest}x{smallest}; enlarge them or choose the stem 'conv3x3_s1'"
    ):
        run(smallest - 1)


@pytest.mark.parametrize(
    ("name", "layout", "path", "theirs"),
    [
        ("densenet121", "torchvision", "stages/3/downsample/conv/kernel", "features.transition3.conv.weight"),
        (
            "densenet121",
            "torchvision",
            "stages/0/blocks/5/norm1/mean",
            "features.denseblock1.denselayer6.norm1.running_mean",
        ),
        # The names in the files that torchvision publishes.
        (
            "densenet121",
            "torchvision 0.2",
            "stages/0/blocks/5/norm1/bias",
            "features.denseblock1.denselayer6.norm.1.bias",
        ),
        (
            "densenet121",
            "torchvision 0.2",
            "stages/1/blocks/0/conv2/kernel",
            "features.denseblock2.denselayer1.conv.2.weight",
        ),
        ("densenet121", "torchvision 0.2", "norm/scale", "features.norm5.weight"),
        ("densenet100_k12", "pytorchcv", "stages/2/downsample/norm/scale", "features.stage3.trans3.conv.bn.weight"),
        ("densenet100_k12", "pytorchcv", "stages/1/blocks/15/conv2/kernel", "features.stage2.unit16.conv2.conv.weight"),
    ],
)
def test_names_in_pytorch(name: str, layout: str, path: str, theirs: str) -> None:
    assert layout in MODELS[name].torch_layouts
    assert MODELS[name].torch_name(path, layout) == theirs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stem": "conv3x3"},
            "stem='conv3x3': unknown; did you mean 'conv3x3_s2'? allowed: conv7x7_s2_pool, conv3x3_s1",
        ),
        ({"depths": ()}, "depths=(): must be positive numbers, one for each stage"),
        ({"depths": (6, 0)}, "depths=(6, 0): must be positive numbers, one for each stage"),
        ({"growth_rate": 0}, "growth_rate=0: must be 1 or more"),
        ({"stem_dim": 0}, "stem_dim=0: must be 1 or more"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["densenet121"], **changes)
