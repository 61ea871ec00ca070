"""The step: one trace, donated state, a function of (seed, step), the same on one device and on eight."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny import tiny_dataset, tiny_experiment, tiny_model

from convnext_jax.batches.resident import EpochOrders, ResidentSplit, put_split
from convnext_jax.config import AugmentConfig, Experiment
from convnext_jax.models import split_model
from convnext_jax.optim.optimizer import make_optimizer
from convnext_jax.optim.schedules import make_schedule
from convnext_jax.sharding import make_mesh, replicated
from convnext_jax.train import step as step_module
from convnext_jax.train.state import TrainState, init_state
from convnext_jax.train.step import Program, StepMetrics, lower_train_steps, train_steps

DATASET = tiny_dataset()
STEPS_PER_EPOCH = 5


def build(mesh: Mesh, experiment: Experiment | None = None, **model: Any) -> tuple[Program, TrainState, ResidentSplit]:
    experiment = experiment or tiny_experiment()
    schedule = make_schedule(experiment.optim, experiment.run.epochs, STEPS_PER_EPOCH)
    optimizer = make_optimizer(experiment.optim, schedule)
    definition, params, statistics = split_model(tiny_model(**model))
    program = Program(
        definition=definition,
        optimizer=optimizer,
        schedule=schedule,
        augment=experiment.augment,
        optim=experiment.optim,
        batch_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        mesh=mesh,
    )
    state = init_state(params, optimizer, statistics, keep_ema=experiment.optim.ema_decay > 0)
    state = jax.device_put(state, replicated(mesh))
    return program, state, put_split(DATASET.train, replicated(mesh))


def draw(mesh: Mesh, epoch: int = 0, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """The order of an epoch and the seed, as a call takes them."""
    order = EpochOrders(seed, len(DATASET.train.labels), replicated(mesh)).order(epoch)
    return order, jax.device_put(jnp.uint32(seed), replicated(mesh))


@pytest.fixture(scope="module")
def one_device() -> Mesh:
    return make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def compiled(one_device: Mesh) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """Five steps a call on one device: an epoch."""
    program, state, data = build(one_device)
    return lower_train_steps(program, state, data, STEPS_PER_EPOCH).compile()


@pytest.fixture(scope="module")
def two_epochs(one_device: Mesh, compiled: Callable[..., Any]) -> tuple[TrainState, list[float]]:
    """The state and the losses of ten steps."""
    return run_two_epochs(one_device, compiled, STEPS_PER_EPOCH)


def run_two_epochs(mesh: Mesh, call: Callable[..., Any], num_steps: int) -> tuple[TrainState, list[float]]:
    _, state, data = build(mesh)
    losses = []
    for first_step in range(0, 2 * STEPS_PER_EPOCH, num_steps):
        state, metrics = call(state, data, *draw(mesh, first_step // STEPS_PER_EPOCH))
        losses += metrics.loss.tolist()
    return state, losses


def test_it_learns(two_epochs: tuple[TrainState, list[float]]):
    state, losses = two_epochs
    assert int(state.step) == 10
    assert np.mean(losses[5:]) < losses[0] - 0.05


def test_one_step_a_call_gives_the_same_run(one_device: Mesh, two_epochs: tuple[TrainState, list[float]]):
    program, state, data = build(one_device)
    call = lower_train_steps(program, state, data, 1).compile()
    _, losses = run_two_epochs(one_device, call, 1)
    np.testing.assert_allclose(losses, two_epochs[1], rtol=1e-4)


def test_eight_devices_give_the_numbers_of_one(two_epochs: tuple[TrainState, list[float]]):
    mesh = make_mesh()
    assert mesh.size == 8
    program, state, data = build(mesh)
    call = lower_train_steps(program, state, data, STEPS_PER_EPOCH).compile()
    state, losses = run_two_epochs(mesh, call, STEPS_PER_EPOCH)
    expected, expected_losses = two_epochs
    # Sums over the batch come in another order: the last digits differ, and ten steps of Adam carry that on.
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-4)
    for ours, theirs in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    # Each device works on its own share of the batch: the stem's map of all eight images is computed nowhere.
    text = call.as_text()
    assert "f32[1,8,8,8]" in text and "f32[8,8,8,8]" not in text


def test_the_run_depends_on_the_seed(one_device: Mesh, compiled: Callable[..., Any]):
    losses = []
    for seed in (0, 0, 1):
        _, state, data = build(one_device)
        losses.append(np.asarray(compiled(state, data, *draw(one_device, seed=seed))[1].loss))
    np.testing.assert_array_equal(losses[0], losses[1])
    assert np.abs(losses[2] - losses[0]).max() > 1e-3


def test_a_step_is_a_function_of_its_number(one_device: Mesh, compiled: Callable[..., Any]):
    first_losses = []
    for step in (5, 10, 5):
        _, state, data = build(one_device)
        start = jax.device_put(jnp.int32(step), replicated(one_device))
        _, metrics = compiled(dataclasses.replace(state, step=start), data, *draw(one_device, step // STEPS_PER_EPOCH))
        first_losses.append(float(metrics.loss[0]))
    assert first_losses[0] == first_losses[2]
    assert first_losses[0] != first_losses[1], "another epoch draws another batch"


def test_the_state_is_donated(one_device: Mesh, compiled: Callable[..., Any]):
    _, state, data = build(one_device)
    compiled(state, data, *draw(one_device))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not data.images.is_deleted()


def test_bfloat16_is_near_float32_and_the_step_is_traced_once(
    one_device: Mesh, two_epochs: tuple[TrainState, list[float]], monkeypatch: pytest.MonkeyPatch
):
    traces = []
    original = step_module.augment

    def counting(*arguments: Any) -> Any:
        traces.append(1)
        return original(*arguments)

    monkeypatch.setattr(step_module, "augment", counting)
    program, state, data = build(one_device, dtype="bfloat16")
    call = jax.jit(lambda *arguments: train_steps(program, *arguments, STEPS_PER_EPOCH))
    losses = []
    for epoch in range(2):
        state, metrics = call(state, data, *draw(one_device, epoch))
        losses += metrics.loss.tolist()
    # A weakly typed leaf would make the second call, which is given what the first returned, trace again.
    assert len(traces) == 1 and call._cache_size() == 1
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    differences = np.abs(np.subtract(losses, two_epochs[1]))
    assert 0 < differences.max() < 0.05


def test_steps_that_do_not_divide_an_epoch_are_refused(one_device: Mesh):
    program, state, data = build(one_device)
    with pytest.raises(ValueError, match="3 steps a call do not divide the 5 steps of an epoch"):
        train_steps(program, state, data, *draw(one_device), 3)


def test_the_whole_recipe_is_one_trace_and_keeps_its_average(one_device: Mesh, monkeypatch: pytest.MonkeyPatch):
    traces = []
    original = step_module.augment

    def counting(*arguments: Any) -> Any:
        traces.append(1)
        return original(*arguments)

    monkeypatch.setattr(step_module, "augment", counting)
    experiment = tiny_experiment()
    augment = AugmentConfig(
        crop_padding=2,
        flip="alternating",
        policy="randaugment",
        erasing_probability=0.25,
        mixup_alpha=0.8,
        cutmix_alpha=1.0,
    )
    optim = dataclasses.replace(experiment.optim, accumulation=2, sam_rho=0.05, ema_decay=0.5)
    program, state, data = build(one_device, dataclasses.replace(experiment, augment=augment, optim=optim))
    program = dataclasses.replace(program, image_size=24)
    call = jax.jit(lambda *arguments: train_steps(program, *arguments, 1))
    for _ in range(3):
        before = jax.tree.map(np.asarray, state.ema)
        state, metrics = call(state, data, *draw(one_device))
        assert np.isfinite(metrics.loss).all()
    # The decay of the third step, (1 + 2) / (10 + 2), is still below 0.5.
    expected = jax.tree.map(lambda mean, new: 3 / 12 * mean + 9 / 12 * np.asarray(new), before, state.params)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-6), state.ema, expected)
    assert len(traces) == 1 and call._cache_size() == 1


def test_the_step_passes_its_settings_on(one_device: Mesh, monkeypatch: pytest.MonkeyPatch):
    passed = {}

    def spy(name: str, index: int) -> None:
        original = getattr(step_module, name)

        def spying(*arguments: Any) -> Any:
            passed[name] = arguments[index]
            return original(*arguments)

        monkeypatch.setattr(step_module, name, spying)

    for name, index in (("accumulated_gradient", 2), ("sharpness_aware", 1), ("scale", 1), ("update_ema", 2)):
        spy(name, index)
    experiment = tiny_experiment()
    optim = dataclasses.replace(experiment.optim, accumulation=4, sam_rho=0.05, ema_decay=0.9)
    program, state, data = build(one_device, dataclasses.replace(experiment, optim=optim))
    program = dataclasses.replace(program, image_size=24)
    jax.eval_shape(lambda *arguments: train_steps(program, *arguments, 1), state, data, *draw(one_device))
    assert passed == {"accumulated_gradient": 4, "sharpness_aware": 0.05, "scale": 24, "update_ema": 0.9}
