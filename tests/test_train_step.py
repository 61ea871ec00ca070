"""The step: one program for all calls, donated state, a function of (seed, step), the same on one device and eight."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.batches.source import BatchSource
from convnext_jax.config import AugmentConfig, Experiment
from convnext_jax.run.prepare import RunPlan, initial_state, make_plan, put_data
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.train.state import TrainState
from convnext_jax.train.step import Metrics, lower_train_steps, train_step

DATASET = tiny_dataset()
STEPS_PER_EPOCH = 5
Call = Callable[..., tuple[TrainState, Metrics]]


def build(mesh: Mesh, experiment: Experiment | None = None) -> tuple[RunPlan, TrainState, BatchSource]:
    plan = make_plan(experiment or tiny_experiment(), DATASET, Sharding(mesh))
    return plan, initial_state(plan), put_data(plan, DATASET)[0]


def arguments(
    source: BatchSource, mesh: Mesh, step: int, count: int, seed: int = 0
) -> tuple[Any, jax.Array, jax.Array]:
    whole = Sharding(mesh).replicated
    return source.feed(step, count), *jax.device_put((jnp.int32(count), jnp.uint32(seed)), whole)


def losses_of(mesh: Mesh, call: Call, counts: list[int], seed: int = 0) -> tuple[TrainState, np.ndarray]:
    """Takes steps, a call for each count, from the start; returns the state and the losses."""
    _, state, source = build(mesh)
    losses, step = [], 0
    for count in counts:
        state, metrics = call(state, *arguments(source, mesh, step, count, seed))
        losses.append(np.asarray(metrics["loss"])[:count])
        step += count
    return state, np.concatenate(losses)


@pytest.fixture(scope="module")
def one_device() -> Mesh:
    return make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def compiled(one_device: Mesh) -> Call:
    plan, _, _ = build(one_device)
    return lower_train_steps(plan.spec, plan.state).compile()


@pytest.fixture(scope="module")
def two_epochs(one_device: Mesh, compiled: Call) -> tuple[TrainState, np.ndarray]:
    """The state and the losses of ten steps in two calls."""
    return losses_of(one_device, compiled, [5, 5])


def test_it_learns(two_epochs: tuple[TrainState, np.ndarray]):
    state, losses = two_epochs
    assert int(state.step) == 10
    assert losses[5:].mean() < losses[0] - 0.05


@pytest.mark.parametrize("counts", [[1] * 10, [3, 2, 4, 1]])
def test_a_step_is_the_same_to_the_last_bit_in_any_call(
    one_device: Mesh, compiled: Call, two_epochs: tuple[TrainState, np.ndarray], counts: list[int]
):
    state, losses = losses_of(one_device, compiled, counts)
    np.testing.assert_array_equal(losses, two_epochs[1])
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(two_epochs[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_eight_devices_give_the_numbers_of_one(compiled: Call, two_epochs: tuple[TrainState, np.ndarray]):
    mesh = make_mesh()
    assert mesh.size == 8
    plan, _, _ = build(mesh)
    call = lower_train_steps(plan.spec, plan.state).compile()
    state, losses = losses_of(mesh, call, [5, 5])
    expected, expected_losses = two_epochs
    # Sums over the batch come in another order: the last digits differ, and ten steps of Adam carry that on.
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-4)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    # Each device works on its own share of the batch.
    work = [program.cost_analysis()["flops"] for program in (call, compiled)]
    assert work[0] < 0.4 * work[1]


def test_the_run_depends_on_the_seed(one_device: Mesh, compiled: Call):
    losses = [losses_of(one_device, compiled, [5], seed)[1] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert np.abs(losses[2] - losses[0]).max() > 1e-3


def test_a_step_is_a_function_of_its_number(one_device: Mesh, compiled: Call):
    first_losses = []
    for step in (5, 10, 5):
        _, state, source = build(one_device)
        start = jax.device_put(jnp.int32(step), Sharding(one_device).replicated)
        _, metrics = compiled(dataclasses.replace(state, step=start), *arguments(source, one_device, step, 1))
        first_losses.append(float(metrics["loss"][0]))
    assert first_losses[0] == first_losses[2]
    assert first_losses[0] != first_losses[1], "another epoch draws another batch"


def test_the_state_is_donated_and_the_data_are_not(one_device: Mesh, compiled: Call):
    _, state, source = build(one_device)
    given = arguments(source, one_device, 0, 5)
    compiled(state, *given)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given))


def changed(experiment: Experiment, **sections: Any) -> Experiment:
    return dataclasses.replace(experiment, **sections)


def test_bfloat16_is_near_float32_and_keeps_its_parameters(one_device: Mesh, two_epochs: tuple[TrainState, np.ndarray]):
    experiment = tiny_experiment()
    half = changed(experiment, model=dataclasses.replace(experiment.model, dtype="bfloat16"))
    plan, state, source = build(one_device, half)
    call = lower_train_steps(plan.spec, plan.state).compile()
    state, metrics = call(state, *arguments(source, one_device, 0, 5))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    differences = np.abs(np.asarray(metrics["loss"])[:5] - two_epochs[1][:5])
    assert 0 < differences.max() < 0.05


WHOLE_RECIPE = AugmentConfig(
    crop_padding=2,
    flip="alternating",
    policy="randaugment",
    erasing_probability=0.25,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
)


def test_the_whole_recipe_is_traced_once_and_keeps_its_average(one_device: Mesh):
    experiment = tiny_experiment()
    optim = dataclasses.replace(experiment.optim, accumulation=2, sam_rho=0.05, ema_decay=0.5)
    plan, state, source = build(one_device, changed(experiment, augment=WHOLE_RECIPE, optim=optim))
    traces = []

    def augment(*given: Any) -> Any:
        traces.append(1)
        return plan.spec.augment(*given)

    spec = dataclasses.replace(plan.spec, augment=augment, image_size=24)
    call = lower_train_steps(spec, plan.state).compile()
    for step in range(3):
        before = jax.tree.map(np.asarray, state.ema)
        state, metrics = call(state, *arguments(source, one_device, step, 1))
        assert np.isfinite(metrics["loss"]).all()
    # The decay of the third step, (1 + 2) / (10 + 2), is still below 0.5.
    expected = jax.tree.map(lambda mean, new: 3 / 12 * mean + 9 / 12 * np.asarray(new), before, state.params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), state.ema, expected)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "change",
    [{"sam_rho": 0.05}, {"image_size": 24}, {"accumulation": 4}],
    ids=lambda change: next(iter(change)),
)
def test_each_part_of_the_specification_changes_the_step(one_device: Mesh, compiled: Call, change: dict[str, Any]):
    plan, state, source = build(one_device)
    given = arguments(source, one_device, 0, 1)
    usual = float(compiled(initial_state(plan), *given)[1]["grad_norm"][0])
    feed, _, seed = given
    spec = dataclasses.replace(plan.spec, **change)
    step = jax.jit(lambda state, feed, seed: train_step(spec, state, spec.source.batch(feed, jnp.int32(0)), seed)[1])
    # Drop path draws another mask for each part of an accumulated batch.
    assert abs(float(step(state, feed, seed)["grad_norm"]) / usual - 1) > 1e-4
