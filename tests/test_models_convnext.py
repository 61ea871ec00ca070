"""ConvNeXt against the paper written out in float64 NumPy, with random weights everywhere."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convnext_jax.layers.layers import GlobalResponseNorm, Initializer, LayerNorm
from convnext_jax.models.architectures import STEMS, Architecture, stem_output_size
from scipy.special import erf

from convnext_jax.errors import UserError
from convnext_jax.models import create_model, merge_model, split_model
from convnext_jax.models.convnext import ConvNeXt

SMALL = Architecture((1, 2, 1, 1), (4, 6, 8, 10), stem="patch2", layer_scale=0.3)
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
}


def small_model(*, dtype=jnp.float32, **changes):
    architecture = dataclasses.replace(SMALL, **changes)
    return ConvNeXt(
        Initializer(np.random.SeedSequence(0)), architecture, num_classes=5, in_channels=3, drop_path=0.0, dtype=dtype
    )


def randomise(params):
    """Weights of the size that keeps activations near 1, nonzero biases, scales away from 1."""
    random = np.random.default_rng(1)

    def draw(path, leaf):
        name, shape = path[-1].key, leaf.shape
        if name == "kernel":
            return (random.standard_normal(shape) / math.sqrt(math.prod(shape[:-1]))).astype(np.float32)
        centre = 0.0 if name == "bias" else 1.0
        return (centre + 0.3 * random.standard_normal(shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


# --- the model of Liu et al. 2022, layer by layer, as their PyTorch code computes it


def conv(x, params, stride, padding):
    kernel = params["kernel"]
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
    for r in range(rows):
        for c in range(columns):
            window = x[:, r * stride : r * stride + size, c * stride : c * stride + size]
            y[:, r, c] = np.tensordot(window, kernel, 3)
    return y + params["bias"]


def depthwise(x, params):
    size, (height, width) = params["kernel"].shape[0], x.shape[1:3]
    padded = np.pad(x, ((0, 0), *[(size // 2, size // 2)] * 2, (0, 0)))
    taps = [(i, j) for i in range(size) for j in range(size)]
    return params["bias"] + sum(padded[:, i : i + height, j : j + width] * params["kernel"][i, j, 0] for i, j in taps)


def norm(x, params):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * params["scale"] + params["bias"]


def response_norm(x, params):
    lengths = np.sqrt((x**2).sum((1, 2), keepdims=True))
    return params["gamma"] * x * lengths / (lengths.mean(-1, keepdims=True) + 1e-6) + params["beta"] + x


def linear(x, params):
    return x @ params["kernel"] + params["bias"]


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}


def block(x, params, architecture):
    if architecture.convolution == "dense":
        y = conv(x, params["dense"], 1, architecture.kernel_size // 2)
    else:
        y = depthwise(x, params["depthwise"])
    y = ACTIVATIONS[architecture.activation](linear(norm(y, params["norm"]), params["expand"]))
    if architecture.grn:
        y = response_norm(y, params["grn"])
    return x + linear(y, params["project"]) * params.get("layer_scale", 1.0)


def reference_features(images, params, architecture):
    first, *more = STEMS[architecture.stem]
    x = conv(images, params["stem"]["conv"], first.stride, first.padding)
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


def reference_logits(images, params, architecture):
    pooled = reference_features(images, params, architecture)[-1].mean((1, 2))
    return linear(norm(pooled, params["norm"]), params["head"])


@functools.cache
def setup(side=24, **changes):
    model = small_model(**changes)
    definition, params, _ = split_model(model)
    images = np.random.default_rng(2).standard_normal((2, side, side, 3)).astype(np.float32)
    return definition, randomise(params), images, model.architecture


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# --- tests


def check_against_reference(side: int, **changes) -> None:
    definition, params, images, architecture = setup(side, **changes)
    model = merge_model(definition, params)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(images)
    expected = reference_features(images.astype(np.float64), in_float64(params), architecture)
    for found, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    wanted = reference_logits(images.astype(np.float64), in_float64(params), architecture)
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


@pytest.mark.parametrize("variant", [{}, *VARIANTS.values()], ids=["v1", *VARIANTS])
def test_gradient_of_every_parameter_is_the_slope_of_the_reference(variant: dict) -> None:
    # Only the first with the kernel of 7 pixels, whose gradient takes long to compile.
    definition, params, images, architecture = setup(16, **({"kernel_size": 3} | variant if variant else {}))
    weights = np.random.default_rng(3).standard_normal((2, 5))

    def loss(params):
        return (merge_model(definition, params)(images) * weights).sum()

    grads = jax.jit(jax.grad(loss))(params)
    exact, direction = in_float64(params), np.random.default_rng(4)
    leaves, structure = jax.tree.flatten(exact)
    # Along one random direction a leaf, by a central difference in float64.
    for index, grad in enumerate(jax.tree.leaves(grads)):
        step = 1e-5 * direction.standard_normal(leaves[index].shape)
        sides = []
        for sign in (1.0, -1.0):
            moved = [leaf + sign * step if i == index else leaf for i, leaf in enumerate(leaves)]
            logits = reference_logits(images.astype(np.float64), structure.unflatten(moved), architecture)
            sides.append((logits * weights).sum())
        slope = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose((np.asarray(grad) * step).sum() / 1e-5, slope, rtol=2e-3, atol=2e-4)


def test_response_norm_of_a_dead_channel_has_a_finite_gradient() -> None:
    norm = GlobalResponseNorm(3)
    norm.gamma[...] = jnp.ones(3)
    x = jnp.ones((1, 2, 2, 3)).at[..., 0].set(0.0)
    grad = jax.grad(lambda x: norm(x).sum())(x)
    # Where a channel is zero everywhere nothing but the residual has a slope.
    np.testing.assert_allclose(grad[..., 0], 1.0)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize(("stem", "strides"), [("patch4", 4), ("patch2", 2), ("patch1", 1)])
def test_features_have_the_strides_of_a_backbone(stem: str, strides: int) -> None:
    def run():
        return create_model("convnext_tiny", num_classes=10, stem=stem).features(jnp.zeros((3, 64, 96, 3)))

    maps, dims = jax.eval_shape(run), (96, 192, 384, 768)
    expected = [(3, 64 // (strides * 2**i), 96 // (strides * 2**i), dim) for i, dim in enumerate(dims)]
    assert [m.shape for m in maps] == expected


@pytest.mark.parametrize(
    ("stem", "side"), [("patch4", 8), ("patch2", 16), ("patch1", 32), ("conv3x3_s1", 32), ("conv3x3_s2", 16)]
)
def test_stems_on_a_32_pixel_image(stem: str, side: int) -> None:
    model = small_model(stem=stem)
    shape = jax.eval_shape(model.stem, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)).shape
    assert shape == (2, side, side, 4) and stem_output_size(stem, 32) == side


def test_an_isotropic_network_keeps_its_map() -> None:
    shapes = jax.eval_shape(lambda: small_model(**ISOTROPIC).features(jnp.zeros((3, 14, 10, 3))))
    assert [shape.shape for shape in shapes] == [(3, 7, 5, 6)] * 4


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model = small_model(stem=stem)
    smallest = model.architecture.smallest_image

    def run(side):
        return jax.eval_shape(model, jax.ShapeDtypeStruct((1, side, 140, 3), jnp.float32))

    assert run(smallest).shape == (1, 5)
    with pytest.raises(UserError, match=f"too small for the stem '{stem}'.* {smallest}x{smallest}"):
        run(smallest - 1)


def test_bfloat16_keeps_parameters_and_logits_in_float32() -> None:
    definition, params, images, _ = setup()
    half, _, _ = split_model(small_model(dtype=jnp.bfloat16))
    model = merge_model(half, params)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(split_model(model)[1])} == {"float32"}
    assert {str(m.dtype) for m in jax.eval_shape(model.features, images)} == {"bfloat16"}
    logits = jax.jit(model)(images)
    assert logits.dtype == jnp.float32
    full = jax.jit(merge_model(definition, params))(images)
    difference = np.abs(logits - full).max()
    assert 1e-5 < difference < 0.1 * np.abs(full).max()


def test_statistics_of_layer_norm_do_not_cancel() -> None:
    x = 1e3 + np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(LayerNorm(64)(jnp.asarray(x)), expected, atol=1e-3)


def test_without_layer_scale_the_parameter_is_gone() -> None:
    _, params, _ = split_model(small_model(layer_scale=0.0))
    assert "layer_scale" not in params["stages"]["0"]["blocks"]["0"]
