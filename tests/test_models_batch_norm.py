"""BatchNorm: the formulas, and running statistics that go through the step, the checkpoint and the evaluation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convnext_jax.layers.layers import BatchNorm
from test_train_step import STEPS_PER_EPOCH, build, draw
from tiny import tiny_model

from convnext_jax.evaluate.split import evaluate_split
from convnext_jax.models import merge_model, running_statistics, split_model
from convnext_jax.sharding import abstract, batch_sharded, make_mesh, replicated
from convnext_jax.train.step import train_steps
from convnext_jax.workdir.checkpoints import Checkpoints


def test_training_normalises_by_the_batch_and_moves_the_running_statistics() -> None:
    norm = BatchNorm(4)
    norm.scale[...], norm.bias[...] = jnp.arange(1.0, 5.0), jnp.arange(4.0)
    x = (3.0 + 2.0 * np.random.default_rng(0).standard_normal((5, 3, 2, 4))).astype(np.float32)
    exact = x.astype(np.float64)
    mean, variance = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    expected = (exact - mean) / np.sqrt(variance + 1e-5) * np.arange(1, 5) + np.arange(4)
    np.testing.assert_allclose(norm(x, training=True), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.variance[...], 0.9 + 0.1 * variance, rtol=1e-5)


def test_outside_training_the_running_statistics_are_used_and_kept() -> None:
    norm = BatchNorm(2)
    norm.mean[...], norm.variance[...] = jnp.array([1.0, -1.0]), jnp.array([4.0, 0.25])
    found = norm(jnp.array([[3.0, 0.0], [1.0, -1.0]]))
    np.testing.assert_allclose(found, [[1.0, 2.0], [0.0, 0.0]], rtol=1e-4)
    np.testing.assert_array_equal(norm.mean[...], [1.0, -1.0])


def test_a_model_without_it_has_no_statistics() -> None:
    assert split_model(tiny_model())[2] == {}
    _, params, statistics = split_model(tiny_model(norm="batch"))
    assert statistics.keys() == {"stem", "stages", "norm"} and "mean" not in params["norm"]


def test_all_devices_together_make_one_batch() -> None:
    definition, params, statistics = split_model(BatchNorm(4))
    x = np.random.default_rng(0).standard_normal((8, 3, 3, 4)).astype(np.float32)

    @jax.jit
    def run(x):
        norm = merge_model(definition, params, statistics)
        return norm(x, training=True), running_statistics(norm)

    split = jax.device_put(x, batch_sharded(make_mesh(jax.devices()[:4])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), run(x), run(split))


def test_the_step_moves_them_and_they_are_saved_and_evaluated_with(tmp_path: Path) -> None:
    mesh = make_mesh(jax.devices()[:1])
    program, before, data = build(mesh, norm="batch", drop_path=0.0)
    step = jax.jit(lambda *arguments: train_steps(program, *arguments, STEPS_PER_EPOCH)[0])
    state = step(before, data, *draw(mesh))
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), before.statistics, state.statistics)
    assert min(jax.tree.leaves(moved)) > 1e-4
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(state, STEPS_PER_EPOCH)
        checkpoints.wait()
        restored = checkpoints.restore_state(STEPS_PER_EPOCH, before)
        like = abstract((state.params, state.statistics), replicated(mesh))
        params, statistics = checkpoints.restore_model(STEPS_PER_EPOCH, *like)
    jax.tree.map(np.testing.assert_array_equal, state.statistics, restored.statistics)
    jax.tree.map(np.testing.assert_array_equal, state.statistics, statistics)

    def loss(statistics) -> float:
        figures = evaluate_split(
            program.definition,
            params,
            data,
            statistics=statistics,
            mean=program.mean,
            std=program.std,
            batch_size=7,
            mesh=mesh,
        )
        return figures["loss"]

    fresh = running_statistics(tiny_model(norm="batch"))
    answers = jax.jit(lambda images: merge_model(program.definition, params, statistics)(images))
    logits = np.asarray(answers((jnp.asarray(data.images) / 255.0 - 0.5) / 0.25), np.float64)
    expected = (np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), data.labels]).mean()
    assert loss(statistics) == pytest.approx(expected, rel=1e-5) and abs(loss(fresh) - expected) > 1e-4
