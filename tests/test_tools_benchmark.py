"""The benchmark: what it measures is what a training runs, its figures follow from the clock, what it refuses."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import AugmentConfig, DataConfig, OptimConfig
from convnext_jax.data.registry import Extent
from convnext_jax.errors import UserError
from convnext_jax.run.loop import train
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tools.benchmark.__main__ import main
from convnext_jax.tools.benchmark.programs import model_macs, pipeline_part, plan_noise, step_part
from convnext_jax.tools.benchmark.throughput import throughput
from convnext_jax.tools.benchmark.timing import flops_per_image
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.checkpoints import Checkpoints

EXTENT = Extent(16, 16, 4, 40)


@pytest.fixture
def sharding() -> Sharding:
    return Sharding(make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize("channels", [1, 3])
def test_multiply_adds_by_hand(sharding: Sharding, channels: int) -> None:
    extent = dataclasses.replace(EXTENT, channels=channels)
    plan, _ = plan_noise(tiny_experiment(), extent, sharding)
    parts = (
        8 * 8 * 8 * (2 * 2 * channels),  # stem: 16 pixels, patches of 2
        8 * 8 * (8 * 3 * 3 + 2 * 8 * 32),
        4 * 4 * (8 * 2 * 2 * 8 + 8 * 3 * 3 + 2 * 8 * 32),
        2 * 2 * (8 * 2 * 2 * 16 + 16 * 3 * 3 + 2 * 16 * 64),
        1 * 1 * (16 * 2 * 2 * 16 + 16 * 3 * 3 + 2 * 16 * 64),
        16 * 4,  # head
    )
    assert model_macs(plan, extent) == sum(parts)


def test_operations_of_an_image() -> None:
    assert flops_per_image("forward", 10, OptimConfig()) == 20
    assert flops_per_image("step", 10, OptimConfig()) == flops_per_image("pipeline", 10, OptimConfig()) == 60
    # Sharpness-aware minimization takes two gradients.
    assert flops_per_image("step", 10, OptimConfig(sam_rho=0.1)) == 120
    assert flops_per_image("forward", 10, OptimConfig(sam_rho=0.1)) == 20


def test_the_pipeline_computes_what_a_training_does(sharding: Sharding, tmp_path: Path) -> None:
    experiment, dataset = tiny_experiment(epochs=2), tiny_dataset()
    with StepCompiler() as compiler:
        with prepare(experiment, tmp_path, sharding.mesh, compiler=compiler, dataset=dataset) as run:
            train(run)
    part = pipeline_part(experiment, dataset, sharding, 5, None)
    part.call()
    assert part.state is not None and int(part.state.step) == 5
    part.call()
    found = {name: getattr(part.state, name) for name in ("params", "opt_state", "ema")}
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        trained = checkpoints.restore(10, found)
    jax.tree.map(np.testing.assert_array_equal, found, trained)


def test_the_step_trains_on_one_batch_whatever_the_augmentation(sharding: Sharding) -> None:
    plain = dataclasses.replace(tiny_experiment(), augment=AugmentConfig(crop_padding=0, flip="none"))
    augmented = dataclasses.replace(
        tiny_experiment(image_sizes=(24,)), augment=AugmentConfig(flip="alternating", erasing_probability=1.0)
    )
    first, second = (step_part(experiment, EXTENT, sharding, 5) for experiment in (plain, augmented))
    assert first.state is not None
    before = jax.tree.map(np.asarray, first.state.params)
    for part in (first, second):
        part.call()
        part.call()
        assert int(part.state.step) == 10
    jax.tree.map(np.testing.assert_array_equal, first.state, second.state)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, first.state.params)
    assert all(jax.tree.leaves(moved))


def test_a_call_has_no_more_steps_than_a_training_gives_it(sharding: Sharding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.tools.benchmark.throughput.matmul_ceiling", lambda *arguments: {512: 1e12})
    extent = Extent(16, 16, 4)
    result = throughput(tiny_experiment(), extent, sharding, ("forward",), steps=700, repeats=2)
    assert result["steps_per_call"] == 512


# --- the command

CONFIG = ("--config", "configs/digits.py")
# A network of one block, which compiles quickly.
ONE_BLOCK = {"name": "resnet18", "depths": "(1,)", "width": "8", "stem": "conv3x3_s2"}


def test_the_figures_follow_from_the_clock(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    command = [sys.executable, "-m", "convnext_jax.tools.benchmark", *CONFIG, "--steps", "3"]
    command += [f"--config.model.{name}={value}" for name, value in ONE_BLOCK.items()]
    command += ["--repeats", "3", "--config.run.batch_size=8", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    # 1,438 images are 179 steps of 8.
    assert result["steps_per_call"] == 3 and result["batch_size"] == 8 and result["image_size"] == [32, 32]
    assert result["ceiling_gflops"] == max(result["product_gflops_by_size"].values()) > 0
    assert list(result["parts"]) == ["forward", "step", "pipeline"]
    for name, part in result["parts"].items():
        assert len(part["seconds"]) == 3
        rate, milliseconds = part["images_per_second"], part["milliseconds_per_step"]
        assert rate["median"] == pytest.approx(3 * 8 / sorted(part["seconds"])[1])
        assert rate["least"] <= rate["lower"] <= rate["median"] <= rate["upper"] <= rate["most"]
        assert milliseconds["median"] == pytest.approx(1e3 * sorted(part["seconds"])[1] / 3)
        assert part["flops_per_image"] == result["macs_per_image"] * (2 if name == "forward" else 6)
        assert part["gflops"] == pytest.approx(rate["median"] * part["flops_per_image"] / 1e9)
        assert part["mfu"] == pytest.approx(part["gflops"] / result["ceiling_gflops"])
        assert part["compile_seconds"] > 0 and part["bytes_per_device"] > 0
    step, pipeline = result["parts"]["step"], result["parts"]["pipeline"]
    assert result["pipeline_over_step"]["ratios"][0] == step["seconds"][0] / pipeline["seconds"][0]
    assert result["settings"]["model"]["width"] == 8 and result["environment"]["versions"]["jax"]
    lines = done.stdout.splitlines()
    assert lines[0].endswith(", calls of 3 steps")
    assert [line.split()[0] for line in lines[1:5]] == ["part", "forward", "step", "pipeline"]


def test_data_that_are_not_there_are_named_with_what_needs_none(sharding: Sharding, tmp_path: Path) -> None:
    experiment = dataclasses.replace(tiny_experiment(), data=DataConfig("image_folder", data_dir=str(tmp_path)))
    with pytest.raises(UserError, match="has no folder train/.*; --parts forward,step needs none"):
        throughput(experiment, None, sharding, ("pipeline",), steps=2, repeats=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parts", "forward,steps"), r"'steps' is unknown; did you mean 'step'\?"),
        (("--parts", "step", "--max_batch"), "leave out one of them"),
        (("--repeats", "1"), "--repeats 1: must be at least 2"),
        (("--steps", "0"), "--steps 0: must be at least 1"),
        (("--image_size", "2"), "images of 2x2 pixels are too small"),
        (("--output", "nowhere/x.json"), "there is no folder nowhere"),
        (("--parts", "step", "--num_classes", "3"), "digits has 10 classes"),
        (("--max_batch", "--config.data.name=image_folder"), "give --image_size and --num_classes"),
        (("--config.model.nam=x",), r"did you mean 'name'\?"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_compiled(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["benchmark", *CONFIG, *arguments])
    with pytest.raises(UserError, match=message):
        main()
    # It says what it compiles.
    assert capfd.readouterr() == ("", "")


def test_the_devices_share_the_state_as_in_a_training() -> None:
    command = [sys.executable, "-m", "convnext_jax.tools.benchmark", *CONFIG, "--parts", "step", "--backend", "cpu"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run([*command, "--config.run.fsdp=3"], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: config.run.fsdp=3 does not divide the number of devices, 2; choose from 1, 2\n"


def test_a_backend_that_is_not_there_is_one_line() -> None:
    command = [sys.executable, "-m", "convnext_jax.tools.benchmark", *CONFIG, "--parts", "step", "--backend", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode == 0:
        pytest.skip("there is an NVIDIA GPU")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --backend cuda cannot be used on this machine")
