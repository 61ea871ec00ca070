"""ConvNeXt against the paper written out in float64 NumPy, with random weights everywhere."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from convnext_jax.errors import UserError
from convnext_jax.models import create_model, merge_model, split_model
from convnext_jax.models.convnext import ConvNeXt
from convnext_jax.models.layers import LayerNorm
from convnext_jax.models.sizes import STEMS, Size, smallest_image

SMALL = Size((1, 2, 1, 1), (4, 6, 8, 10))


def small_model(**options):
    chosen = {"stem": "patch2", "num_classes": 5, "in_channels": 3, "drop_path": 0.0, "layer_scale": 0.3}
    return ConvNeXt(np.random.SeedSequence(0), SMALL, **(chosen | {"dtype": jnp.float32} | options))


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
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    taps = [(i, j) for i in range(7) for j in range(7)]
    return params["bias"] + sum(padded[:, i : i + height, j : j + width] * params["kernel"][i, j, 0] for i, j in taps)


def norm(x, params):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * params["scale"] + params["bias"]


def linear(x, params):
    return x @ params["kernel"] + params["bias"]


def block(x, params):
    y = linear(norm(depthwise(x, params["depthwise"]), params["norm"]), params["expand"])
    y = linear(0.5 * y * (1.0 + erf(y / math.sqrt(2.0))), params["project"])
    return x + y * params["layer_scale"]


def reference_features(images, params, stem):
    x = norm(conv(images, params["stem"]["conv"], stem.stride, stem.padding), params["stem"]["norm"])
    maps = []
    for index in range(4):
        stage = params["stages"][str(index)]
        if index:
            x = conv(norm(x, stage["downsample"]["norm"]), stage["downsample"]["conv"], 2, 0)
        for number in range(SMALL.depths[index]):
            x = block(x, stage["blocks"][str(number)])
        maps.append(x)
    return maps


def reference_logits(images, params, stem):
    pooled = reference_features(images, params, stem)[-1].mean((1, 2))
    return linear(norm(pooled, params["norm"]), params["head"])


@functools.cache
def setup(stem="patch2", side=24):
    definition, params = split_model(small_model(stem=stem))
    images = np.random.default_rng(2).standard_normal((2, side, side, 3)).astype(np.float32)
    return definition, randomise(params), images


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


# --- tests


@pytest.mark.parametrize(("stem", "side"), [("patch2", 24), ("patch1", 9), ("conv3x3_s1", 8), ("conv3x3_s2", 17)])
def test_logits_and_features_are_those_of_the_paper(stem: str, side: int) -> None:
    definition, params, images = setup(stem, side)
    model = merge_model(definition, params)
    logits, features = jax.jit(lambda x: (model(x), model.features(x)))(images)
    expected = reference_features(images.astype(np.float64), in_float64(params), STEMS[stem])
    for found, wanted in zip(features, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    wanted = reference_logits(images.astype(np.float64), in_float64(params), STEMS[stem])
    assert logits.dtype == jnp.float32 and wanted.std() > 0.1
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)


def test_gradient_of_every_parameter_is_the_slope_of_the_reference() -> None:
    definition, params, images = setup("patch2", 16)
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
            logits = reference_logits(images.astype(np.float64), structure.unflatten(moved), STEMS["patch2"])
            sides.append((logits * weights).sum())
        slope = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose((np.asarray(grad) * step).sum() / 1e-5, slope, rtol=2e-3, atol=2e-4)


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
    assert shape == (2, side, side, 4) and STEMS[stem].output_size(32) == side


@pytest.mark.parametrize("stem", STEMS)
def test_an_image_too_small_for_the_strides_is_refused_with_the_smallest_that_works(stem: str) -> None:
    model, smallest = small_model(stem=stem), smallest_image(stem)

    def run(side):
        return jax.eval_shape(model, jax.ShapeDtypeStruct((1, side, 40, 3), jnp.float32))

    assert run(smallest).shape == (1, 5)
    with pytest.raises(UserError, match=f"too small for the stem '{stem}'.* {smallest}x{smallest}"):
        run(smallest - 1)


def test_bfloat16_keeps_parameters_and_logits_in_float32() -> None:
    definition, params, images = setup()
    half, _ = split_model(small_model(dtype=jnp.bfloat16))
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
    _, params = split_model(small_model(layer_scale=0.0))
    assert "layer_scale" not in params["stages"]["0"]["blocks"]["0"]
