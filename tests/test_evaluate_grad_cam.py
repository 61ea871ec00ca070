"""Grad-CAM against class activation maps, and against finite differences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import FAMILIES
from numpy_layers import images
from tiny import tiny_model

from convnext_jax.errors import UserError
from convnext_jax.evaluate.grad_cam import explainable_stage, grad_cam
from convnext_jax.models.interface import Model

CLASSES = np.array([[2, 0], [1, 1], [3, 0]], np.int32)


def network(family: str) -> Model:
    """A network whose bias and scale are random too, as all initial biases are 0."""
    model = tiny_model(architecture=FAMILIES[family])
    for number, layer in enumerate(filter(None, (model.head, getattr(model, "norm", None)))):
        for name in ("bias", "scale"):
            if (value := getattr(layer, name, None)) is not None:
                value[...] += jax.random.normal(jax.random.key(number), value.shape)
    return model


def slopes(logit: Callable[[np.ndarray], np.ndarray], stage_map: np.ndarray, step: float) -> np.ndarray:
    """[B,C]: how the logits [B] change with what is added to a channel, over the number of its places."""
    columns = []
    for channel in range(stage_map.shape[-1]):
        change = np.zeros(stage_map.shape[-1], stage_map.dtype)
        change[channel] = step
        columns.append((logit(stage_map + change) - logit(stage_map - change)) / (2 * step))
    return np.stack(columns, -1) / np.prod(stage_map.shape[1:3])


def weighted(stage_map: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.maximum(np.einsum("bhwc,bc->bhw", stage_map, weights), 0)


def explain(model: Any, x: jax.Array, stage: int) -> np.ndarray:
    return np.asarray(jax.jit(lambda x, classes: grad_cam(model, x, classes, stage))(x, CLASSES))


def test_without_a_norm_before_the_head_it_is_the_class_activation_map():
    # Zhou et al. 2016 (arXiv 1512.04150): the weights of the class in the head, up to the number of places.
    model, x = network("resnet"), images(3, 16, 16, 3)
    stage_map, kernel = np.float64(model.features(x)[-1]), np.float64(model.head.kernel[...])
    maps = explain(model, x, stage=2)
    assert maps.shape == (3, 2, 8, 8)
    for index in range(2):
        expected = weighted(stage_map, kernel[:, CLASSES[:, index]].T) / 64
        assert expected.max() > 1e-3
        np.testing.assert_allclose(maps[:, index], expected, rtol=1e-4, atol=1e-6)


def test_with_a_norm_it_follows_finite_differences():
    model, x = network("convnext"), images(3, 32, 32, 3)
    stage_map = np.float64(model.features(x)[-1])  # [3,2,2,16]
    scale, shift = np.float64(model.norm.scale[...]), np.float64(model.norm.bias[...])

    def logits(stage_map: np.ndarray) -> np.ndarray:
        pooled = stage_map.mean((1, 2))
        centered = pooled - pooled.mean(-1, keepdims=True)
        normal = centered / np.sqrt(np.square(centered).mean(-1, keepdims=True) + 1e-6)
        return (normal * scale + shift) @ np.float64(model.head.kernel[...]) + np.float64(model.head.bias[...])

    np.testing.assert_allclose(logits(stage_map), model(x), rtol=1e-4, atol=1e-4)  # it is the network's head
    maps = explain(model, x, stage=4)
    for index in range(2):
        weights = slopes(lambda x, k=index: logits(x)[np.arange(3), CLASSES[:, k]], stage_map, 1e-5)
        expected = weighted(stage_map, weights)
        assert expected.max() > 1e-3
        np.testing.assert_allclose(maps[:, index], expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_a_vit_is_explained_by_the_map_that_enters_its_last_stage():
    model, x = network("vit"), images(3, 16, 16, 3)
    assert explainable_stage(model, (16, 16, 3)) == 3
    parts = model.parts()
    tokens = x
    for name in ("stem", "stage 1", "stage 2", "stage 3"):
        tokens = parts[name](tokens)
    tokens = np.asarray(tokens)  # [3,1+16,16], the class token first
    rest = jax.jit(lambda tokens: parts["head"](parts["stage 4"](tokens)))

    def logit(stage_map: np.ndarray, index: int) -> np.ndarray:
        given = np.concatenate([tokens[:, :1], stage_map.reshape(3, 16, 16)], 1)
        return np.float64(rest(jnp.asarray(given)))[np.arange(3), CLASSES[:, index]]

    maps, stage_map = explain(model, x, stage=3), tokens[:, 1:].reshape(3, 4, 4, 16)
    for index in range(2):
        expected = weighted(stage_map, slopes(lambda x, k=index: logit(x, k), stage_map, 1e-2))
        assert expected.max() > 0
        np.testing.assert_allclose(maps[:, index], expected, atol=0.02 * expected.max())


def test_a_map_of_one_pixel_is_passed_over():
    model = network("convnext")  # of stride 16
    assert explainable_stage(model, (32, 32, 3)) == 4
    assert explainable_stage(model, (16, 16, 3)) == 3
    assert explainable_stage(model, (16, 32, 3)) == 4, "a map of one row has places"


def test_a_stage_without_places_is_refused():
    model = network("convnext")
    assert explainable_stage(model, (16, 16, 3), 2) == 2
    for stage in (4, 5):
        with pytest.raises(
            UserError, match=rf"^stage {stage} of .* cannot be explained; those that can are 1 \(8x8\), 2 \(4x4\), 3 \("
        ):
            explainable_stage(model, (16, 16, 3), stage)
    with pytest.raises(UserError, match="stage 4 of this network cannot be explained"):
        explainable_stage(network("vit"), (16, 16, 3), 4)
    with pytest.raises(UserError, match="no stage of this network has a map of several pixels"):
        explainable_stage(network("vit"), (4, 4, 3))
