"""ConvNeXt against the paper written out in float64 NumPy, with random weights everywhere."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import (
    batch_norm,
    conv,
    depthwise,
    gelu,
    images,
    layer_norm,
    linear,
    merged,
    randomize,
    relu,
    response_norm,
    silu,
    to_float64,
)

from convnext_jax.errors import UserError
from convnext_jax.models import MODELS, create_model, merge_model, split_model
from convnext_jax.models.convnext import STEMS, ConvNeXt, ConvNeXtArchitecture, stem_output_size

SMALL = ConvNeXtArchitecture((1, 2, 1, 1), (4, 6, 8, 10), stem="patch2", layer_scale=0.3)
ISOTROPIC = {"isotropic": True, "dims": (6, 6, 6, 6), "layer_scale": 0.0}
# Every switch at another value than SMALL's.
VARIANTS = {
    "v2": {"grn": True, "layer_scale": 0.0},
    "isotropic": ISOTROPIC,
    "kernel_size": {"kernel_size": 5},
    "dense": {"convolution": "dense", "kernel_size": 3},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "expansion": {"expansion": 2},
    "batch norm": {"norm": "batch"},
}
ACTIVATIONS = {"gelu": gelu, "relu": relu, "silu": silu}
NORMS = {"layer": layer_norm, "batch": batch_norm}


def small_model(**changes) -> ConvNeXt:
    return create_model(SMALL, num_classes=5, **changes)


# --- the model of Liu et al. 2022, layer by layer, as their PyTorch code computes it


def block(x, params, architecture):
    if architecture.convolution == "dense":
        y = conv(x, params["dense"], 1, architecture.kernel_size // 2)
    else:
        y = depthwise(x, params["depthwise"])
    y = NORMS[architecture.norm](y, params["norm"])
    y = ACTIVATIONS[architecture.activation](linear(y, params["expand"]))
    if architecture.grn:
        y = response_norm(y, params["grn"])
    return x + linear(y, params["project"]) * params.get("layer_scale", 1.0)


def reference_features(x, params, architecture):
    first, *more = STEMS[architecture.stem]
    norm = NORMS[architecture.norm]
    x = conv(x, params["stem"]["conv"], first.stride, first.padding)
    for index, window in enumerate(more):
        x = conv(x, params["stem"]["more"][str(index)], window.stride, window.padding)
    if not architecture.isotropic:
        x = norm(x, params["stem"]["norm"])
    maps = []
    for index in range(4):
        stage = params["stages"][str(index)]
        if index and not architecture.isotropic:
            x = conv(norm(x, stage["downsample"]["norm"]), stage["downsample"]["conv"], 2, 0)
        for number in range(architecture.depths[index]):
            x = block(x, stage["blocks"][str(number)], architecture)
        maps.append(x)
    return maps


def reference_logits(x, params, architecture):
    pooled = reference_features(x, params, architecture)[-1].mean((1, 2))
    return linear(NORMS[architecture.norm](pooled, params["norm"]), params["head"])


@functools.cache
def setup(side, **changes):
    model = small_model(**changes)
    definition, params, batch_stats = split_model(model)
    return definition, randomize(params), randomize(batch_stats), images(2, side, side, 3), model.architecture


# --- tests


def check_against_reference(side: int, **changes) -> None:
    definition, params, batch_stats, x, architecture = setup(side, **changes)
    model = merge_model(definition, params, batch_stats)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(x)
    exact = to_float64(merged(params, batch_stats))
    expected = reference_features(x.astype(np.float64), exact, architecture)
    for found, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    wanted = reference_logits(x.astype(np.float64), exact, architecture)
    assert logits.dtype == jnp.float32 and wanted.std() > 0.1
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stem", "side"), [("patch2", 24), ("patch1", 9), ("conv3x3_s1", 8), ("conv3x3_s2", 17), ("conv7x7_patch2", 33)]
)
def test_logits_and_features_are_those_of_the_paper(stem: str, side: int) -> None:
    check_against_reference(side, stem=stem)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_features_of_the_variants(variant: str) -> None:
    check_against_reference(16, **VARIANTS[variant])


@pytest.mark.parametrize("variant", ["v1", "v2", "isotropic", "dense", "batch norm"])
def test_gradient_of_every_parameter_is_the_slope_of_the_reference(variant: str) -> None:
    # Only the first with the kernel of 7 pixels, whose gradient takes long to compile.
    changes = {} if variant == "v1" else {"kernel_size": 3} | VARIANTS[variant]
    definition, params, batch_stats, x, architecture = setup(16, **changes)
    weights = np.random.default_rng(3).standard_normal((2, 5))

    def loss(params):
        return (merge_model(definition, params, batch_stats)(x) * weights).sum()

    def exact_loss(params):
        exact = merged(params, to_float64(batch_stats))
        return (reference_logits(x.astype(np.float64), exact, architecture) * weights).sum()

    grads = jax.jit(jax.grad(loss))(params)
    leaves, structure = jax.tree.flatten(to_float64(params))
    direction = np.random.default_rng(4)
    # Along one random direction a leaf, by a central difference in float64.
    for index, grad in enumerate(jax.tree.leaves(grads)):
        step = 1e-5 * direction.standard_normal(leaves[index].shape)
        sides = []
        for sign in (1.0, -1.0):
            moved = [leaf + sign * step if i == index else leaf for i, leaf in enumerate(leaves)]
            sides.append(exact_loss(structure.unflatten(moved)))
        slope = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose((np.asarray(grad) * step).sum() / 1e-5, slope, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("stem", "strides"), [("patch4", 4), ("patch2", 2), ("patch1", 1)])
def test_features_have_the_strides_of_a_backbone(stem: str, strides: int) -> None:
    def run():
        return create_model("convnext_atto", num_classes=10, stem=stem).features(jnp.zeros((3, 64, 96, 3)))

    maps, dims = jax.eval_shape(run), (40, 80, 160, 320)
    expected = [(3, 64 // (strides * 2**i), 96 // (strides * 2**i), dim) for i, dim in enumerate(dims)]
    assert [m.shape for m in maps] == expected


@pytest.mark.parametrize(
    ("stem", "side"), [("patch4", 8), ("patch2", 16), ("patch1", 32), ("conv3x3_s1", 32), ("conv3x3_s2", 16)]
)
def test_stems_on_a_32_pixel_image(stem: str, side: int) -> None:
    first, *_ = jax.eval_shape(small_model(stem=stem).features, jnp.zeros((2, 32, 32, 3)))
    assert first.shape == (2, side, side, 4) and stem_output_size(stem, 32) == side


def test_an_isotropic_network_keeps_its_map() -> None:
    shapes = jax.eval_shape(lambda: small_model(**ISOTROPIC).features(jnp.zeros((3, 14, 10, 3))))
    assert [shape.shape for shape in shapes] == [(3, 7, 5, 6)] * 4


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model = small_model(stem=stem, kernel_size=3)
    smallest = model.architecture.smallest_image

    def run(side):
        return jax.eval_shape(model, jax.ShapeDtypeStruct((1, side, 140, 3), jnp.float32))

    assert run(smallest).shape == (1, 5)
    with pytest.raises(UserError, match=f"works is {smallest}x{smallest}; .* less stride than '{stem}'"):
        run(smallest - 1)


def test_without_layer_scale_the_parameter_is_gone() -> None:
    _, params, _ = split_model(small_model(layer_scale=0.0))
    assert "layer_scale" not in params["stages"]["0"]["blocks"]["0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_scale": -1e-6}, "layer_scale=-1e-06: must be 0 (left out) or a positive number"),
        ({"kernel_size": 4}, "kernel_size=4: must be odd and positive"),
        ({"expansion": 0}, "expansion=0: must be 1 or more"),
        ({"stem": "patch3"}, "stem='patch3': unknown; did you mean 'patch"),
        ({"activation": "gelo"}, "activation='gelo': unknown; did you mean 'gelu'?"),
        ({"convolution": "depthwize"}, "convolution='depthwize': unknown; did you mean 'depthwise'?"),
        ({"norm": "group"}, "norm='group': unknown; allowed: layer, batch"),
        ({"depths": (2, 2, 6)}, "depths=(2, 2, 6): must be four positive numbers, one for each stage"),
        ({"depths": (2, 2, 0, 2)}, "depths=(2, 2, 0, 2): must be four positive numbers"),
        ({"dims": (8, 8)}, "dims=(8, 8): must be four positive numbers"),
        ({"block": "multiscale", "grn": True}, "grn=True: must be False with block=multiscale"),
        ({"block": "multiscale", "expansion": 2}, "expansion=2: must be 4 with block=multiscale"),
        ({"block": "multiscale_a", "dims": (6, 8, 8, 8)}, "dims=(6, 8, 8, 8): must be multiples of 4 with block="),
        ({"swin_mlp_stages": (0,)}, "swin_mlp_stages=(0,): must be some of 1, 2, 3, 4"),
        ({"isotropic": True}, "dims=(40, 80, 160, 320): must be the same in every stage of an isotropic network"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        dataclasses.replace(MODELS["convnext_atto"], **changes)
