"""Checkpoints: the latest and the best kept, parameters alone restored, other devices welcome."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convnext_jax.errors import UserError
from convnext_jax.sharding import abstract, make_mesh, replicated
from convnext_jax.train.state import TrainState, init_state
from convnext_jax.workdir.checkpoints import Checkpoints

OPTIMIZER = optax.adam(0.1)


def state_at(step: int) -> TrainState:
    state = init_state({"layer": {"kernel": jnp.full((2, 3), float(step))}}, OPTIMIZER)
    return TrainState(jnp.int32(step), state.params, state.opt_state)


def figures(top1: float) -> dict[str, float]:
    return {"test/loss": 1.0, "test/top1": top1, "test/top5": 1.0}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Evaluated at 10, 20, 30 and 40, stopped at 45; the best is 20, the latest two are 40 and 45."""
    with Checkpoints(tmp_path / "checkpoints", keep_latest=2, keep_best=1) as checkpoints:
        for step, top1 in ((10, 0.1), (20, 0.9), (30, 0.5), (40, 0.6)):
            checkpoints.save(state_at(step), step, figures(top1))
        checkpoints.save(state_at(45), 45)
    return tmp_path / "checkpoints"


def test_latest_and_best_are_kept(directory: Path):
    assert sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal()) == [20, 40, 45]
    with Checkpoints(directory, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == checkpoints.select("latest") == 45
        assert checkpoints.best_step() == checkpoints.select("best") == 20
        assert checkpoints.metrics(20) == figures(0.9)
        assert checkpoints.metrics(45) == {}
        assert checkpoints.select("40") == 40


@pytest.mark.parametrize("which", ["10", "4", "newest", "-1"])
def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(directory: Path, which: str):
    with Checkpoints(directory, read_only=True) as checkpoints:
        with pytest.raises(UserError, match=f"no checkpoint '{which}'; there are 20, 40, 45; or say best or latest"):
            checkpoints.select(which)


def test_a_state_comes_back_whole(directory: Path):
    with Checkpoints(directory, read_only=True) as checkpoints:
        restored = checkpoints.restore_state(40, state_at(0))
    assert int(restored.step) == 40
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(state_at(40)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parameters_alone_come_back_on_other_devices(directory: Path):
    sharding = replicated(make_mesh())
    with Checkpoints(directory, read_only=True) as checkpoints:
        params, _ = checkpoints.restore_model(20, abstract(state_at(0).params, sharding), {})
    np.testing.assert_array_equal(params["layer"]["kernel"], np.full((2, 3), 20.0))
    assert params["layer"]["kernel"].sharding.device_set == set(jax.devices())


def test_a_step_that_is_there_is_left_alone(directory: Path):
    with Checkpoints(directory, keep_latest=2, keep_best=1) as checkpoints:
        checkpoints.save(state_at(7), 40, figures(1.0))
        checkpoints.wait()
        assert checkpoints.metrics(40) == figures(0.6)


def test_what_a_kill_left_half_written_is_swept_away(directory: Path):
    half = directory / "50.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "params").write_text("half")
    with Checkpoints(directory, keep_latest=2, keep_best=1) as checkpoints:
        assert checkpoints.latest_step() == 45
        # Orbax sweeps in the background and waits for that before it saves.
        checkpoints.save(state_at(60), 60)
    assert not half.exists()


def test_the_best_of_a_run_with_a_validation_split(tmp_path: Path):
    with Checkpoints(tmp_path, keep_latest=1, keep_best=1) as checkpoints:
        for step, top1 in ((10, 0.9), (20, 0.5), (30, 0.6)):
            checkpoints.save(state_at(step), step, {"validation/loss": 1.0, "validation/top1": top1})
        checkpoints.wait()
        assert checkpoints.steps() == [10, 30] and checkpoints.select("best") == 10


def test_the_best_of_a_run_without_evaluations_is_its_latest(tmp_path: Path):
    with Checkpoints(tmp_path, keep_latest=2, keep_best=1) as checkpoints:
        with pytest.raises(UserError, match="there is none yet"):
            checkpoints.select("best")
        checkpoints.save(state_at(5), 5)
        checkpoints.wait()
        assert checkpoints.select("best") == 5
