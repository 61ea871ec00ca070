"""``--extend``: a longer run from a finished one, the same to the last bit as one that was this long from the start."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_run_loop import DATASET, Watched, last_params, run, shared_compiler, without_clocks
from tiny import tiny_experiment

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError
from convnext_jax.evaluate.offline import SavedRun
from convnext_jax.run.rollback import train_to_the_end
from convnext_jax.sharding import make_mesh
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.claim import read_experiment
from convnext_jax.workdir.rollbacks import read_rollbacks

SCHEDULES = {
    "warmup_stable_decay": {"schedule": "warmup_stable_decay", "decay_fraction": 0.45},
    "step": {"schedule": "step", "decay_epochs": (2,)},
}


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)


def experiment(schedule: str, epochs: int, **settings: object) -> Experiment:
    base = tiny_experiment(epochs=epochs, keep_latest=1, keep_best=0, steps_per_dispatch=1, **settings)
    fields = SCHEDULES.get(schedule, {"schedule": schedule})
    return dataclasses.replace(base, optim=dataclasses.replace(base.optim, **fields))


def extend(longer: Experiment, workdir: Path) -> None:
    mesh = make_mesh(jax.devices()[:1])
    train_to_the_end(longer, workdir, mesh, compiler=shared_compiler(longer), dataset=DATASET, extend=True)


def steps(workdir: Path) -> list[int]:
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.steps()


@pytest.mark.parametrize(("schedule", "goes_on_from"), [("warmup_stable_decay", 11), ("step", 20)])
def test_a_longer_run_is_the_one_that_was_this_long_from_the_start(tmp_path: Path, schedule: str, goes_on_from: int):
    short, longer = experiment(schedule, 4), experiment(schedule, 6)
    workdir, whole = tmp_path / "run", tmp_path / "whole"
    run(short, workdir)
    before, log = last_params(short, workdir), without_clocks(workdir)
    assert steps(workdir) == sorted({goes_on_from, 20}), "the last state before the decay is kept"
    extend(longer, workdir)
    run(longer, whole)
    assert read_experiment(workdir) == longer
    assert without_clocks(workdir) == without_clocks(whole)
    jax.tree.map(np.testing.assert_array_equal, last_params(longer, workdir), last_params(longer, whole))
    aside = workdir / "before_extension_4"
    assert aside.exists() == (goes_on_from < 20)
    if aside.exists():  # it can still be used
        assert without_clocks(aside) == log
        jax.tree.map(np.testing.assert_array_equal, before, last_params(short, aside))
        assert SavedRun.open(aside, data_dir=None, dtype=None).select("latest") == 20
    extend(longer, workdir)  # the same command again changes nothing
    assert without_clocks(workdir) == without_clocks(whole)


@pytest.mark.parametrize(("poisoned_at", "rollbacks"), [(7, [(8, 5)]), (14, [])])
def test_a_rollback_stays_if_the_longer_run_would_have_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poisoned_at: int, rollbacks: list[tuple[int, int]]
):
    settings = {"on_divergence": "rollback", "rollback_factor": 0.25}
    short, longer = (experiment("warmup_stable_decay", epochs, **settings) for epochs in (4, 6))
    workdir, whole, left = tmp_path / "run", tmp_path / "whole", 1

    def poison(state: Any) -> Any:
        nonlocal left
        if int(state.step) != poisoned_at or not left:
            return state
        left -= 1
        params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.params)
        return dataclasses.replace(state, params=params)

    def train(chosen: Experiment, folder: Path) -> None:
        compiler, mesh = Watched(after=poison, compiler=shared_compiler(chosen)), make_mesh(jax.devices()[:1])
        train_to_the_end(chosen, folder, mesh, compiler=compiler, dataset=DATASET)

    train(short, workdir)
    (rollback,) = read_rollbacks(workdir)
    assert rollback.diverged_at == poisoned_at + 1
    extend(longer, workdir)
    left = len(rollbacks)
    train(longer, whole)
    assert [(each.diverged_at, each.from_step) for each in read_rollbacks(workdir)] == rollbacks
    assert read_rollbacks(workdir / "before_extension_4") == [rollback]
    assert without_clocks(workdir) == without_clocks(whole)
    jax.tree.map(np.testing.assert_array_equal, last_params(longer, workdir), last_params(longer, whole))


def test_a_finished_cosine_cannot_be_extended(tmp_path: Path):
    run(experiment("cosine", 4), tmp_path)
    config = (tmp_path / "config.json").read_bytes()
    with pytest.raises(
        UserError,
        match=r"--extend: with config\.optim\.schedule=cosine a run of 6 epochs has the learning rates of one of 4 in"
        r" its first \d+ of 20 steps alone.*step and warmup_stable_decay can be extended; begin a new run",
    ):
        extend(experiment("cosine", 6), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == config and steps(tmp_path) == [20], "nothing was changed"


def test_what_is_no_extension_is_refused(tmp_path: Path):
    run(experiment("step", 4), tmp_path)
    with pytest.raises(UserError, match=r"has 4 epochs already; give more with --config\.run\.epochs"):
        extend(experiment("step", 3), tmp_path)
    with pytest.raises(UserError, match=r"belongs to another configuration \(run\.batch_size: 8 there, 4 now\)"):
        extend(experiment("step", 6, batch_size=4), tmp_path)
    with pytest.raises(UserError, match=r"belongs to another configuration \(run\.epochs: 4 there, 6 now\)"):
        run(experiment("step", 6), tmp_path)
