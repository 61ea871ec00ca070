"""Gradients in parts and uphill against those they must equal."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from convnext_jax.models.architectures import Architecture
from flax import nnx
from tiny import NUM_CLASSES

from convnext_jax.augment.mixing import Targets
from convnext_jax.models import create_model, split_model
from convnext_jax.train.gradients import Outcome, accumulated_gradient, gradient_norm, sharpness_aware

RANDOM = np.random.default_rng(0)
INPUTS = jnp.asarray(RANDOM.standard_normal((12, 16, 16, 3)), jnp.float32)
TARGETS = Targets(
    jnp.asarray(RANDOM.integers(0, NUM_CLASSES, 12), jnp.int32),
    jnp.asarray(RANDOM.integers(0, NUM_CLASSES, 12), jnp.int32),
    jnp.asarray(RANDOM.random(12), jnp.float32),
)


def small_model(**settings: Any) -> nnx.Module:
    architecture = Architecture((1, 1, 1, 1), (16, 8, 8, 8), stem="patch2", layer_scale=0.1, kernel_size=1)
    return create_model(architecture, num_classes=NUM_CLASSES, **settings)


def test_the_norm_is_over_all_arrays_whatever_their_shape():
    tree = {"a": jnp.full(3, 2.0), "b": [jnp.full(1, -1.0), jnp.full((2, 2), 3.0)], "c": jnp.float32(5.0)}
    assert gradient_norm(tree) == np.sqrt(3 * 4 + 1 + 4 * 9 + 25, dtype=np.float32)


def test_accumulation_equals_the_large_batch():
    parts = 3
    definition, params, statistics = split_model(small_model())

    def compute(parts: int, inputs: jax.Array = INPUTS, targets: Targets = TARGETS) -> tuple[dict, Outcome]:
        return jax.jit(accumulated_gradient, static_argnums=(0, 1, 2))(
            definition, 0.1, parts, params, statistics, inputs, targets, jax.random.key(0)
        )

    whole, cut = compute(1), compute(parts)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole[0]))
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(cut), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6 * max(largest, 1))
    # The parts are not the same images over again.
    first = jax.tree.map(lambda x: x[::parts], (INPUTS, TARGETS))
    part = compute(1, *first)
    assert abs(float(part[1].loss) - float(whole[1].loss)) > 1e-4


def test_sharpness_aware_gradient_of_a_parabola():
    # Of x' A x / 2 the gradient is A x, and uphill by rho it is A (x + rho A x / |A x|).
    matrix = np.array([[3.0, 1.0], [1.0, 2.0]])
    point = np.array([0.5, -2.0])

    def compute(params: dict) -> tuple[dict, Outcome]:
        x = params["x"]
        loss = x @ jnp.asarray(matrix, jnp.float32) @ x / 2
        return {"x": jnp.asarray(matrix, jnp.float32) @ x}, Outcome(loss, jnp.float32(0), {})

    params = {"x": jnp.asarray(point, jnp.float32)}
    slope = matrix @ point
    for rho in (0.0, 0.3):
        grads, outcome = sharpness_aware(compute, rho, params)
        expected = matrix @ (point + rho * slope / np.linalg.norm(slope))
        np.testing.assert_allclose(grads["x"], expected, rtol=1e-5)
        np.testing.assert_allclose(outcome.loss, point @ matrix @ point / 2, rtol=1e-6)


def test_rematerialisation_changes_no_gradient_and_needs_less_memory():
    key = jax.random.key(0)
    inputs, targets = (
        jax.tree.map(lambda leaf: jnp.tile(leaf, (16,) + (1,) * (leaf.ndim - 1)), each) for each in (INPUTS, TARGETS)
    )

    def gradient_and_memory(remat: bool) -> tuple[dict, int]:
        architecture = Architecture((6, 1, 1, 1), (16, 8, 8, 8), stem="patch1", layer_scale=0.1, kernel_size=3)
        model = create_model(
            architecture, num_classes=NUM_CLASSES, drop_path=0.3, dropout=0.2, remat=remat, initialization="fan_in"
        )
        program = jax.jit(accumulated_gradient, static_argnums=(0, 1, 2))
        definition, *state = split_model(model)
        compiled = program.lower(definition, 0.1, 1, *state, inputs, targets, key).compile()
        grads, _ = compiled(*state, inputs, targets, key)
        return grads, compiled.memory_analysis().temp_size_in_bytes

    (grads, memory), (again, less) = gradient_and_memory(False), gradient_and_memory(True)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), grads, again)
    assert less < 0.5 * memory
