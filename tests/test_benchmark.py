"""The benchmark: what it measures is what a training runs, its figures follow from the clock, what it refuses."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import ROOT
from convnext_jax.tools.benchmark.flops import flops_per_image
from jax.sharding import Mesh
from tiny import TINY_MODEL, tiny_dataset, tiny_experiment

from convnext_jax import data
from convnext_jax.config import DataConfig, Experiment, OptimConfig
from convnext_jax.data.registry import Extent, known_extent
from convnext_jax.errors import UserError
from convnext_jax.run import loop
from convnext_jax.sharding import make_mesh
from convnext_jax.tools import benchmark, benchmark_throughput
from convnext_jax.tools.benchmark.programs import model_macs, pipeline_part, prepare_noise, step_part
from convnext_jax.tools.benchmark.throughput import throughput, throughput_table
from convnext_jax.train.compiler import TrainPrograms
from convnext_jax.workdir.records import claim

DATASET = tiny_dataset()
EXTENT = Extent(16, 16, 4, 40)


def tiny(**run: Any) -> Experiment:
    return dataclasses.replace(tiny_experiment(**run), model=TINY_MODEL)


@pytest.fixture
def mesh() -> Mesh:
    return make_mesh(jax.devices()[:1])


def test_multiply_adds_by_hand(mesh: Mesh) -> None:
    run, state = prepare_noise(tiny(), EXTENT, mesh)
    parts = (
        8 * 8 * 8 * (2 * 2 * 3),  # stem: 16 pixels, patches of 2
        8 * 8 * (8 * 3 * 3 + 2 * 8 * 32),
        4 * 4 * (8 * 2 * 2 * 8 + 8 * 3 * 3 + 2 * 8 * 32),
        2 * 2 * (8 * 2 * 2 * 16 + 16 * 3 * 3 + 2 * 16 * 64),
        1 * 1 * (16 * 2 * 2 * 16 + 16 * 3 * 3 + 2 * 16 * 64),
        16 * 4,  # head
    )
    assert model_macs(run.program, state.params, state.statistics, 16, 16) == sum(parts)


def test_operations_of_an_image() -> None:
    assert flops_per_image("forward", 10, OptimConfig()) == 20
    assert flops_per_image("step", 10, OptimConfig()) == flops_per_image("pipeline", 10, OptimConfig()) == 60
    # Sharpness-aware minimisation takes two gradients.
    assert flops_per_image("step", 10, OptimConfig(sam_rho=0.1)) == 120
    assert flops_per_image("forward", 10, OptimConfig(sam_rho=0.1)) == 20


def test_the_pipeline_is_the_program_of_a_training(mesh: Mesh, tmp_path: Path) -> None:
    experiment = tiny(epochs=2)
    states = []

    class Keeping(TrainPrograms):
        def wait_for(self, size: int | None) -> Any:
            def call(*arguments: Any) -> Any:
                states.append(compiled(*arguments))
                return states[-1]

            compiled = super().wait_for(size)
            return call

    claim(tmp_path, experiment)
    with Keeping() as programs:
        loop.train(experiment, DATASET, tmp_path, mesh, programs)
    part = pipeline_part(experiment, DATASET, mesh, 5, None)
    part.call()
    assert part.state is not None and int(part.state.step) == 5
    part.call()
    trained, _ = states[-1]
    assert int(trained.step) == 10
    jax.tree.map(np.testing.assert_array_equal, part.state, trained)


def test_the_step_trains_on_one_batch_unaugmented(mesh: Mesh) -> None:
    # Nothing of the crop and the flip, nor of a scaled image, is left in the program.
    experiment = tiny(image_sizes=(24,))
    part = step_part(experiment, EXTENT, mesh, 5)
    part.call()
    part.call()
    assert part.state is not None and int(part.state.step) == 10
    before = prepare_noise(experiment, EXTENT, mesh)[1].params
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, part.state.params)
    assert all(jax.tree.leaves(moved))
    run, _ = prepare_noise(experiment, EXTENT, mesh)
    assert run.program.augment.flip == "none" and run.program.augment.crop_padding == 0
    assert run.program.image_size is None and run.experiment.run.image_sizes == ()
    assert run.train.images.shape == (8, 16, 16, 3) and run.train.images.std() > 60


@pytest.fixture
def known_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_throughput, "matmul_ceiling", lambda *arguments: {512: 5e8, 1024: 1e9})
    monkeypatch.setattr(data, "load", lambda config: DATASET)


def test_the_figures_follow_from_the_clock(mesh: Mesh, known_ceiling: None) -> None:
    experiment = tiny()
    result = throughput(experiment, None, mesh, ("forward", "step", "pipeline"), steps=7, repeats=3)
    json.dumps(result)
    # 40 images are five steps of eight.
    assert result["steps_per_call"] == 5 and result["batch_size"] == 8 and result["image_size"] == [16, 16]
    assert list(result["parts"]) == ["forward", "step", "pipeline"]
    for name, part in result["parts"].items():
        assert len(part["seconds"]) == 3
        rate, milliseconds = part["images_per_second"], part["milliseconds_per_step"]
        assert rate["median"] == pytest.approx(5 * 8 / sorted(part["seconds"])[1])
        assert rate["least"] <= rate["lower"] <= rate["median"] <= rate["upper"] <= rate["most"]
        assert milliseconds["median"] == pytest.approx(1e3 * sorted(part["seconds"])[1] / 5)
        assert part["flops_per_image"] == result["macs_per_image"] * (2 if name == "forward" else 6)
        assert part["mfu"] == pytest.approx(rate["median"] * part["flops_per_image"] / 1e9)
        assert part["compile_seconds"] > 0 and part["bytes_per_device"] > 0
    step, pipeline = result["parts"]["step"], result["parts"]["pipeline"]
    assert result["pipeline_over_step"]["ratios"][0] == step["seconds"][0] / pipeline["seconds"][0]
    lines = throughput_table(result).splitlines()
    assert lines[0].endswith(", calls of 5 steps")
    assert [line.split()[0] for line in lines[1:5]] == ["part", "forward", "step", "pipeline"]


def test_without_the_pipeline_no_data_are_read(
    mesh: Mesh, known_ceiling: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_data(config: DataConfig) -> None:
        raise UserError("there are no data")

    monkeypatch.setattr(data, "load", no_data)
    result = throughput(tiny(), EXTENT, mesh, ("forward",), steps=2, repeats=2)
    assert list(result["parts"]) == ["forward"] and result["pipeline_over_step"] is None
    with pytest.raises(UserError, match="there are no data; --parts forward,step needs none"):
        throughput(tiny(), None, mesh, ("pipeline",), steps=2, repeats=2)


def test_what_is_known_of_the_data_is_so(shared_data: Path) -> None:
    for config in (DataConfig("digits"), DataConfig("digits", image_size=12), DataConfig("cifar100")):
        dataset = data.load(dataclasses.replace(config, data_dir=str(shared_data)))
        examples, height, width = dataset.train.images.shape[:3]
        assert known_extent(config) == Extent(height, width, len(dataset.class_names), examples)
    assert known_extent(DataConfig("image_folder")) is None


CONFIG = ("--config", "configs/digits.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parts", "forward,steps"), "'steps' is unknown; did you mean 'step'?"),
        (("--parts", "step", "--max_batch"), "leave out one of them"),
        (("--repeats", "1"), "--repeats 1: must be at least 2"),
        (("--steps", "0"), "--steps 0: must be at least 1"),
        (("--image_size", "2"), "images of 2x2 pixels are too small"),
        (("--output", "nowhere/x.json"), "there is no folder nowhere"),
        (("--parts", "step", "--num_classes", "3"), "digits has 10 classes"),
        (("--max_batch", "--config.data.name=image_folder"), "give --image_size and --num_classes"),
        (("--config.model.nam=x",), "did you mean 'name'?"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_compiled(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["benchmark", *CONFIG, *arguments])
    monkeypatch.setattr(benchmark, "_start", lambda *arguments: pytest.fail("it was started"))
    with pytest.raises(UserError) as refused:
        benchmark.main()
    assert message in str(refused.value)


def test_a_backend_that_is_not_there_is_one_line() -> None:
    command = [sys.executable, "-m", "convnext_jax.tools.benchmark", *CONFIG, "--parts", "step", "--backend", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode == 0:
        pytest.skip("there is an NVIDIA GPU")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --backend cuda cannot be used on this machine")
