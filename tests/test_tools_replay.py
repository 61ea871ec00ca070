"""A step taken again: the same figures as in the log, with the pictures and the labels that it was given."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from jax.sharding import Mesh
from PIL import Image
from test_run_loop import run
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.data.digits import load_digits
from convnext_jax.errors import UserError
from convnext_jax.run.replay import replay
from convnext_jax.sharding import make_mesh
from convnext_jax.tools.replay import main
from convnext_jax.workdir.claim import write_claim
from convnext_jax.workdir.metrics_log import read_metrics
from convnext_jax.workdir.rollbacks import Rollback, write_rollbacks


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of the digits, with a line of the log for each step."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    settings = {"model.name": "convnext_atto", "model.depths": "(1,1,1,1)", "model.dims": "(8,8,8,8)"}
    settings |= {
        "run.epochs": "2",
        "run.eval_every_epochs": "1",
        "run.batch_size": "256",
        "run.steps_per_dispatch": "1",
        "run.seed": "3",
    }
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "train.py", "--config", "configs/digits.py", "--workdir", str(folder), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_step_is_the_one_that_was_logged(workdir: Path):
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line]
    step = int(lines[-1]["step"]) - 1  # after the checkpoint of the first epoch
    again = replay(workdir, step, make_mesh(jax.devices()[:1]), say=lambda text: None)
    assert 0 < again.from_step < step - 1
    line = next(line for line in lines if line["step"] == step)
    assert again.statistics["loss"] == pytest.approx(line["train/loss"], rel=1e-4)
    assert again.statistics["grad_norm"] == pytest.approx(line["train/grad_norm"], rel=1e-3)
    assert again.statistics["lr"] == pytest.approx(line["train/lr"])
    assert np.mean([each["loss"] for each in again.examples]) == pytest.approx(again.statistics["loss"], rel=1e-4)
    labels = load_digits(None, 3).train.labels
    plain = [each for each in again.examples if "%" not in each["label"]]
    assert [each["label"] for each in plain] == [str(labels[each["index"]]) for each in plain]
    assert len(again.statistics["stages"]) == 4


def tiny_run(workdir: Path, monkeypatch: pytest.MonkeyPatch, **optim: float) -> dict[int, dict[str, float]]:
    """Ten steps of `tiny_dataset` with checkpoints after 5 and 10; returns the line of the log of each step."""
    experiment = tiny_experiment(epochs=2, steps_per_dispatch=1)
    experiment = dataclasses.replace(experiment, optim=dataclasses.replace(experiment.optim, **optim))
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)
    monkeypatch.setattr("convnext_jax.data.load", lambda config: tiny_dataset())
    run(experiment, workdir)
    lines = read_metrics(workdir / "metrics.jsonl")
    return {int(line["step"]): line for line in lines if "train/loss" in line}


def test_a_step_of_sharpness_aware_minimization_has_the_gradient_that_was_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = tiny_run(tmp_path, monkeypatch, sam_rho=0.5)
    again = replay(tmp_path, 8, make_mesh(jax.devices()[:1]), say=lambda text: None)
    assert again.statistics["grad_norm"] == pytest.approx(lines[8]["train/grad_norm"], rel=1e-3)


def test_a_step_that_diverged_is_as_it_was_before_the_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = tiny_run(tmp_path, monkeypatch)
    write_rollbacks(tmp_path, [Rollback(7, 0, 0.25), Rollback(9, 5, 0.25)])
    again = replay(tmp_path, 7, make_mesh(jax.devices()[:1]), say=lambda text: None)
    assert again.statistics["lr"] == pytest.approx(lines[7]["train/lr"])
    assert again.from_step == 0, "the checkpoint of step 5 is from after the rollback"
    assert again.statistics["loss"] == pytest.approx(lines[7]["train/loss"], rel=1e-4)


@pytest.mark.parametrize(("fsdp", "expected"), [(2, 2), (3, 1)])
def test_the_devices_share_the_state_as_in_the_run_where_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsdp: int, expected: int
):
    def stop(workdir: Path, step: int, mesh: Mesh, **options: object) -> None:
        raise UserError(f"{mesh.shape['data']}x{mesh.shape['fsdp']}")

    write_claim(tmp_path, tiny_experiment(fsdp=fsdp))
    monkeypatch.setattr("convnext_jax.run.replay.replay", stop)
    monkeypatch.setattr("convnext_jax.run.jax_settings.start_jax", lambda: None)
    monkeypatch.setattr("convnext_jax.run.compilation_cache.keep_compiled_programs", lambda: None)
    monkeypatch.setattr(sys, "argv", ["replay", "--workdir", str(tmp_path), "--step", "1"])
    with pytest.raises(UserError, match=f"^{8 // expected}x{expected}$"):
        main()


def test_the_command_writes_pictures_and_figures(workdir: Path, tmp_path: Path):
    command = [sys.executable, "-m", "convnext_jax.tools.replay", "--workdir", str(workdir), "--step", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "taking the steps 1 to 1 again" in done.stderr and "largest gradient" in done.stdout
    examples = json.loads((tmp_path / "examples.json").read_text())["examples"]
    assert len(examples) == 256
    assert json.loads((tmp_path / "statistics.json").read_text())["from_step"] == 0
    with Image.open(tmp_path / "pictures.png") as picture:
        assert picture.width > 8 * 64 and picture.height > 32 * 64


def test_the_folder_of_several_seeds_is_refused(tmp_path: Path):
    write_claim(tmp_path, tiny_experiment(seeds=3, seed=7))
    with pytest.raises(UserError, match=r"holds 3 seeds; take one of them, such as .*/seed_7$"):
        replay(tmp_path, 1, make_mesh(jax.devices()[:1]))


def test_a_step_that_the_run_does_not_have_is_refused(workdir: Path):
    with pytest.raises(UserError, match=r"--step 999: the run in .* has the steps 1 to \d+"):
        replay(workdir, 999, make_mesh(jax.devices()[:1]))
