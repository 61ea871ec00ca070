"""LayerNorm, BatchNorm and Global Response Normalization, and the running statistics of a network in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_layers import images, randomize, response_norm, with_random_weights
from tiny import NUM_CLASSES, tiny_model

from convnext_jax.layers.normalization import BatchNorm, GlobalResponseNorm, LayerNorm, make_norm
from convnext_jax.models import batch_stats_of, merge_model, split_model
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tasks.classification import Classification
from convnext_jax.train.state import init_state
from convnext_jax.train.step import StepSpec, train_step


@pytest.mark.parametrize("options", [{}, {"momentum": 0.25, "epsilon": 0.1}, {"momentum": 1.0}], ids=str)
def test_batch_norm_takes_the_batch_in_training_and_follows_it(options: dict) -> None:
    momentum, epsilon = options.get("momentum", 0.1), options.get("epsilon", 1e-5)
    norm, before = with_random_weights(BatchNorm(4, **options))
    x = 3.0 + 2.0 * images(5, 3, 2, 4)
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    expected = (exact - mean) / np.sqrt(variance + epsilon) * before["scale"] + before["bias"]
    np.testing.assert_allclose(norm(x, training=True), expected, rtol=1e-5, atol=1e-5)
    after = batch_stats_of(norm)
    unbiased = exact.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(after["mean"], (1 - momentum) * before["mean"] + momentum * mean, rtol=1e-5)
    np.testing.assert_allclose(after["variance"], (1 - momentum) * before["variance"] + momentum * unbiased, rtol=1e-5)


def test_batch_norm_uses_and_keeps_the_running_statistics_outside_of_training() -> None:
    norm = BatchNorm(2)
    norm.mean[...], norm.variance[...] = jnp.array([1.0, -1.0]), jnp.array([4.0, 0.25])
    found = norm(jnp.array([[3.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_allclose(found, [[1.0, 2.0], [0.0, 0.0]], rtol=1e-4)
    after = batch_stats_of(norm)
    assert (after["mean"].tolist(), after["variance"].tolist()) == ([1.0, -1.0], [4.0, 0.25])


def test_batch_norm_of_a_single_value_stays_finite() -> None:
    norm = BatchNorm(2)
    assert norm(jnp.ones((1, 2)), training=True).tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(batch_stats_of(norm)["variance"], [0.9, 0.9])


def test_the_gradient_goes_through_the_statistics_of_the_batch() -> None:
    """Neither a shift of a channel nor a stretch of it moves the output."""
    x = jnp.asarray(images(6, 2, 2, 3))
    weights = jnp.asarray(images(6, 2, 2, 3, seed=4))
    grad = jax.grad(lambda x: (BatchNorm(3)(x, training=True) * weights).sum())(x)
    assert np.abs(grad).max() > 0.1
    np.testing.assert_allclose(grad.sum((0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose((grad * x).sum((0, 1, 2)), 0.0, atol=1e-3)


def test_statistics_of_bfloat16_maps_are_float32() -> None:
    norm, x = BatchNorm(1), jnp.asarray([[256.0], [258.0]], jnp.bfloat16)
    y = norm(x, training=True)
    # In bfloat16 the mean, 257, would be 256.
    assert y.dtype == jnp.bfloat16 and y.tolist() == [[-1.0], [1.0]]
    np.testing.assert_allclose(batch_stats_of(norm)["mean"], [25.7], rtol=1e-6)


def test_all_devices_together_make_one_batch() -> None:
    definition, params, batch_stats = split_model(BatchNorm(4))
    x = images(8, 3, 3, 4)

    @jax.jit
    def run(x):
        norm = merge_model(definition, params, batch_stats)
        return norm(x, training=True), batch_stats_of(norm)

    split = jax.device_put(x, Sharding(make_mesh(jax.devices()[:4])).batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(x), run(split))


def test_a_model_without_it_has_no_statistics() -> None:
    assert split_model(tiny_model())[2] == {}
    _, params, batch_stats = split_model(tiny_model(norm="batch"))
    assert batch_stats.keys() == {"stem", "stages", "norm"} and "mean" not in params["norm"]


def test_a_training_step_keeps_the_running_statistics_of_the_model() -> None:
    definition, params, batch_stats = split_model(tiny_model(norm="batch", drop_path=0.0))
    params = randomize(params)
    x, labels = jnp.asarray(images(8, 16, 16, 3)), jnp.arange(8, dtype=jnp.int32) % NUM_CLASSES
    task, optimizer = Classification(NUM_CLASSES), optax.sgd(0.1)
    spec = StepSpec(
        definition=definition,
        task=task,
        optimizer=optimizer,
        schedule=optax.constant_schedule(0.1),
        augment=lambda seed, step, batch: (x, task.targets(labels)),
        source=None,
        sharding=Sharding(make_mesh(jax.devices()[:1])),
    )
    step = jax.jit(functools.partial(train_step, spec))
    state, _ = step(init_state(params, optimizer, batch_stats), None, jnp.uint32(0))

    @jax.jit
    def forward(params, batch_stats):
        model = merge_model(definition, params, batch_stats)
        model(x, key=jax.random.key(0))
        return batch_stats_of(model)

    expected = forward(params, batch_stats)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state.batch_stats, expected)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), batch_stats, state.batch_stats)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_statistics_of_layer_norm_do_not_cancel() -> None:
    x = 1e3 + images(4, 64)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(LayerNorm(64)(jnp.asarray(x)), expected, atol=1e-3)


def test_layer_norm_has_an_epsilon() -> None:
    np.testing.assert_allclose(LayerNorm(2, epsilon=3.0)(jnp.array([-1.0, 1.0])), [-0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("kind", "epsilon"), [("layer", 1e-6), ("batch", 1e-5)])
def test_norms_by_name(kind: str, epsilon: float) -> None:
    # The two values are a pixel's channels and a channel's pixels.
    x = jnp.array([[1e-3, -1e-3], [-1e-3, 1e-3]])
    found = make_norm(kind, 2)(x, training=True)
    np.testing.assert_allclose(found, x / np.sqrt(1e-6 + epsilon), rtol=1e-4)


def test_response_norm() -> None:
    norm, params = with_random_weights(GlobalResponseNorm(6))
    x = images(2, 4, 5, 6)
    np.testing.assert_allclose(norm(jnp.asarray(x)), response_norm(x.astype(np.float64), params), rtol=1e-5, atol=1e-5)


def test_response_norm_of_a_dead_channel_has_a_finite_gradient() -> None:
    norm = GlobalResponseNorm(3)
    norm.gamma[...] = jnp.ones(3)
    x = jnp.ones((1, 2, 2, 3)).at[..., 0].set(0.0)
    grad = jax.grad(lambda x: norm(x).sum())(x)
    # Where a channel is zero everywhere nothing but the residual has a slope.
    np.testing.assert_allclose(grad[..., 0], 1.0)
    assert np.isfinite(grad).all()
