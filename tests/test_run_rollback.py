"""``run.on_divergence=rollback``: a run that diverged goes on from its last checkpoint with a lower learning rate."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import pytest
from test_run_loop import DATASET, last_params, without_clocks
from tiny import tiny_experiment

from convnext_jax.errors import UserError
from convnext_jax.run.reporter import Diverged
from convnext_jax.run.rollback import train_to_the_end
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.metrics_log import read_metrics

# Without warm-up and clipping, so that a learning rate of 1e30 is one from the first step on.
BASE = tiny_experiment(on_divergence="rollback", rollback_factor=0.25, rollbacks=2, checkpoint_steps=5, epochs=3)


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)


class Poisoned(StepCompiler):
    """Makes a parameter infinite after a step, the first ``times`` times that the step is taken."""

    at: int = 10
    left: int
    held: ClassVar[list[int]] = []  # images on the devices when each start begins to compile

    def begin(self, *asked: Any) -> None:
        type(self).held.append(sum(array.size for array in jax.live_arrays() if array.dtype == jnp.uint8))
        super().begin(*asked)

    def wait_for(self, size: int | None) -> Any:
        compiled = super().wait_for(size)

        def call(state: Any, *others: Any) -> tuple[Any, Any]:
            state, metrics = compiled(state, *others)
            if int(state.step) == type(self).at and type(self).left:
                type(self).left -= 1
                params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.inf), state.params)
                state = dataclasses.replace(state, params=params)
            return state, metrics

        return call


def train(workdir: Path, monkeypatch: pytest.MonkeyPatch, times: int, **run: Any) -> dict[str, Any]:
    Poisoned.left, Poisoned.held = times, []
    monkeypatch.setattr("convnext_jax.run.prepare.StepCompiler", Poisoned)  # that of a run that was taken back
    experiment = dataclasses.replace(BASE, run=dataclasses.replace(BASE.run, **run))
    with Poisoned() as compiler:
        return train_to_the_end(experiment, workdir, make_mesh(jax.devices()[:1]), compiler=compiler, dataset=DATASET)


def learning_rates(workdir: Path) -> dict[int, float]:
    lines = read_metrics(workdir / "metrics.jsonl")
    return {int(line["step"]): line["train/lr"] for line in lines if "train/lr" in line}


def test_the_learning_rate_is_lower_from_the_checkpoint_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "run"
    train(undisturbed, monkeypatch, times=0)
    summary = train(workdir, monkeypatch, times=2)
    assert summary["rollbacks"] == [
        {"diverged_at": 10, "from_step": 5, "factor": 0.25},
        {"diverged_at": 10, "from_step": 5, "factor": 0.25},
    ]
    said = capsys.readouterr().err
    assert "the test loss is nan at step 10" in said
    assert "going back to step 5 with 0.25 times the learning rate, rollback 1 of at most 2" in said
    expected = {step: lr * (0.25**2 if step > 5 else 1) for step, lr in learning_rates(undisturbed).items()}
    assert learning_rates(workdir) == pytest.approx(expected)
    # Stopped and started again, it is still the run that was taken back.
    lines = without_clocks(workdir)
    for checkpoint in ("15",):
        (workdir / "checkpoints" / checkpoint).rename(tmp_path / checkpoint)
    train(workdir, monkeypatch, times=0)
    assert without_clocks(workdir) == lines


def test_a_state_from_which_the_next_step_diverges_is_not_gone_back_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Poisoned, "at", 9)  # saved before its own step shows it, four after that of the evaluation
    summary = train(tmp_path, monkeypatch, times=1, checkpoint_steps=4, steps_per_dispatch=1)
    assert summary["rollbacks"] == [{"diverged_at": 10, "from_step": 5, "factor": 0.25}]


def test_a_run_that_diverges_too_often_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Diverged, match="the test loss is nan at step 10") as caught:
        train(tmp_path, monkeypatch, times=3)
    assert "all of config.run.rollbacks=2 are used: " in str(caught.value)
    assert "in another --workdir, or raise config.run.rollbacks; " in str(caught.value)
    assert "on_divergence" not in str(caught.value), "it is set already"
    assert len(json.loads((tmp_path / "rollbacks.json").read_text())["rollbacks"]) == 2
    last_params(BASE, tmp_path)
    assert len(Poisoned.held) == 3 and len(set(Poisoned.held)) == 1, "the data are on the devices once"
    assert len(train(tmp_path, monkeypatch, times=1, rollbacks=3)["rollbacks"]) == 3, "the remedy works"


def test_a_run_that_stopped_can_be_taken_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Diverged, match=r"set config\.optim\.clip_norm or config\.run\.on_divergence=rollback"):
        train(tmp_path, monkeypatch, times=1, on_divergence="stop")
    assert not (tmp_path / "rollbacks.json").exists()
    assert train(tmp_path, monkeypatch, times=1)["rollbacks"]


def test_damaged_rollbacks_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tmp_path, monkeypatch, times=1)
    path = tmp_path / "rollbacks.json"
    path.write_text(path.read_text().replace("0.25", "0.75"))
    with pytest.raises(UserError, match=r"rollbacks\.json cannot be read \(it was changed or damaged"):
        train(tmp_path, monkeypatch, times=0)
