"""Gradients in parts, and uphill, against those they must equal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tiny import NUM_CLASSES

from convnext_jax.models import create_model, split_model
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.interface import Model
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.tasks.classification import Classification, MixedLabels
from convnext_jax.train.gradients import BatchResult, accumulated_gradient, gradient_norm, sharpness_aware

RANDOM = np.random.default_rng(0)
INPUTS = jnp.asarray(RANDOM.standard_normal((12, 16, 16, 3)), jnp.float32)
TARGETS = MixedLabels(
    jnp.asarray(RANDOM.integers(0, NUM_CLASSES, 12), jnp.int32),
    jnp.asarray(RANDOM.integers(0, NUM_CLASSES, 12), jnp.int32),
    jnp.asarray(RANDOM.random(12), jnp.float32),
)
TASK = Classification(NUM_CLASSES, label_smoothing=0.1)
SMALL = ConvNeXtArchitecture((1, 1, 1, 1), (16, 8, 8, 8), stem="patch2", layer_scale=0.1, kernel_size=1)


def compute(
    model: Model, parts: int, inputs: jax.Array = INPUTS, targets: MixedLabels = TARGETS
) -> tuple[Any, BatchResult]:
    definition, params, batch_stats = split_model(model)
    return jax.jit(accumulated_gradient, static_argnums=(0, 1, 2))(
        definition, TASK, parts, params, batch_stats, inputs, targets, jax.random.key(0)
    )


def test_the_norm_is_over_all_arrays_whatever_their_shape():
    tree = {"a": jnp.full(3, 2.0), "b": [jnp.full(1, -1.0), jnp.full((2, 2), 3.0)], "c": jnp.float32(5.0)}
    assert gradient_norm(tree) == np.sqrt(3 * 4 + 1 + 4 * 9 + 25, dtype=np.float32)


def test_accumulation_equals_the_large_batch():
    parts, model = 3, create_model(SMALL, num_classes=NUM_CLASSES)
    whole, cut = compute(model, 1), compute(model, parts)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole[0]))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * max(largest, 1))
    # The parts are not the same images over again.
    first = jax.tree.map(lambda x: x[::parts], (INPUTS, TARGETS))
    part = compute(model, 1, *first)
    assert abs(float(part[1].metrics["loss"]) - float(whole[1].metrics["loss"])) > 1e-4


def test_accumulation_updates_running_statistics_once_a_batch():
    architecture = ResNetArchitecture((1,), block="basic", width=4, stem="conv3x3_s1")
    model = create_model(architecture, num_classes=NUM_CLASSES)
    batches = [jax.tree.map(lambda x, k=k: x[k::3], (INPUTS, TARGETS)) for k in range(3)]
    parts = [compute(model, 1, *batch)[1].batch_stats for batch in batches]
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *parts)
    found = compute(model, 3)[1].batch_stats
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    # Three updates in a row would move them almost three times as far.
    fresh = split_model(model)[2]["stem"]["norm"]
    moved, once = (np.abs(each["stem"]["norm"]["variance"] - fresh["variance"]).max() for each in (found, parts[0]))
    assert moved < 1.5 * once


def test_sharpness_aware_gradient_of_a_parabola():
    # Of x' A x / 2 the gradient is A x, and uphill by rho it is A (x + rho A x / |A x|).
    matrix = np.array([[3.0, 1.0], [1.0, 2.0]])
    point = np.array([0.5, -2.0])

    def compute(params: dict) -> tuple[dict, BatchResult]:
        x = params["x"]
        loss = x @ jnp.asarray(matrix, jnp.float32) @ x / 2
        return {"x": jnp.asarray(matrix, jnp.float32) @ x}, BatchResult({"loss": loss}, {})

    params = {"x": jnp.asarray(point, jnp.float32)}
    slope = matrix @ point
    for rho in (0.0, 0.3):
        grads, result = sharpness_aware(compute, rho, params)
        expected = matrix @ (point + rho * slope / np.linalg.norm(slope))
        np.testing.assert_allclose(grads["x"], expected, rtol=1e-5)
        np.testing.assert_allclose(result.metrics["loss"], point @ matrix @ point / 2, rtol=1e-6)


def test_rematerialization_changes_no_gradient_and_needs_less_memory():
    key = jax.random.key(0)
    inputs, targets = (
        jax.tree.map(lambda leaf: jnp.tile(leaf, (16,) + (1,) * (leaf.ndim - 1)), each) for each in (INPUTS, TARGETS)
    )
    deep = ConvNeXtArchitecture((6, 1, 1, 1), (16, 8, 8, 8), stem="patch1", layer_scale=0.1, kernel_size=3)

    def gradient_and_memory(remat: bool) -> tuple[dict, int]:
        model = create_model(
            deep, num_classes=NUM_CLASSES, drop_path=0.3, dropout=0.2, remat=remat, initialization="fan_in"
        )
        program = jax.jit(accumulated_gradient, static_argnums=(0, 1, 2))
        definition, *state = split_model(model)
        compiled = program.lower(definition, TASK, 1, *state, inputs, targets, key).compile()
        grads, _ = compiled(*state, inputs, targets, key)
        return grads, compiled.memory_analysis().temp_size_in_bytes

    (grads, memory), (again, less) = gradient_and_memory(False), gradient_and_memory(True)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), grads, again)
    assert less < 0.5 * memory
