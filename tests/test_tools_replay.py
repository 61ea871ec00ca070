"""A step taken again: the same figures as in the log, with the pictures and the labels that it was given."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from convnext_jax.data.digits import load_digits
from convnext_jax.errors import UserError
from convnext_jax.run.replay import replay
from convnext_jax.sharding import make_mesh
from convnext_jax.workdir.metrics_log import read_metrics


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


def test_a_step_that_the_run_does_not_have_is_refused(workdir: Path):
    with pytest.raises(UserError, match=r"--step 999: the run in .* has the steps 1 to \d+"):
        replay(workdir, 999, make_mesh(jax.devices()[:1]))
