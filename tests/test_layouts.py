"""One run on different devices: the same numbers, the least traffic, and from one layout to another."""

import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from networks import RESNET, TINY
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.config import Experiment
from convnext_jax.models.interface import Architecture
from convnext_jax.run.loop import train
from convnext_jax.run.prepare import make_plan, prepare
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.train.step import lower_train_steps
from convnext_jax.workdir.checkpoints import Checkpoints
from convnext_jax.workdir.metrics_log import read_metrics

DATASET = tiny_dataset()
# With three arrays that are large enough to be split, and drop path, dropout and a moving average in it.
WIDE = dataclasses.replace(TINY, depths=(1, 1, 1, 2), dims=(8, 8, 16, 64))
LAYOUTS = {"1": (1, 1), "2": (2, 1), "4": (4, 1), "8": (8, 1), "2x4": (8, 4)}


def experiment_of(architecture: Architecture = WIDE, epochs: int = 2) -> Experiment:
    return tiny_experiment(architecture, epochs=epochs, keep_latest=5)


def run(layout: str, workdir: Path, epochs: int = 2) -> tuple[np.ndarray, Any]:
    """Trains on a layout, ``devices`` and how many of them share a state; returns the losses and the parameters."""
    devices, fsdp = LAYOUTS[layout]
    experiment = experiment_of(epochs=epochs)
    with (
        StepCompiler() as compiler,
        prepare(
            experiment, workdir, make_mesh(jax.devices()[:devices], fsdp=fsdp), compiler=compiler, dataset=DATASET
        ) as prepared,
    ):
        train(prepared)
    losses = [line["train/loss"] for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line]
    return np.array(losses), params_of(workdir)


def params_of(workdir: Path) -> Any:
    plan = make_plan(experiment_of(), DATASET, Sharding(make_mesh(jax.devices()[:1])))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        assert step is not None
        return checkpoints.restore(step, {"params": plan.state.params})["params"]


@functools.cache
def _text(layout: str, architecture: Architecture) -> str:
    devices, fsdp = LAYOUTS[layout]
    sharding = Sharding(make_mesh(jax.devices()[:devices], fsdp=fsdp))
    plan = make_plan(experiment_of(architecture), DATASET, sharding)
    return lower_train_steps(plan.spec, plan.state).compile().as_text()


def collectives(text: str) -> dict[str, list[int]]:
    """Returns how many numbers each collective of a program moves, by kind."""
    form = (
        r"^\s*(?:ROOT )?%\S+ = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
    )
    found: dict[str, list[int]] = {}
    for result, kind in re.findall(form, text, re.MULTILINE):
        shapes = re.findall(r"[a-z]+[0-9]*\[([0-9,]*)\]", result)
        sizes = [math.prod(int(side) for side in shape.split(",")) if shape else 1 for shape in shapes]
        found.setdefault(kind, []).append(sum(sizes))
    return found


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, Any]:
    return run("1", tmp_path_factory.mktemp("one"))


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)


def assert_near(found: tuple[np.ndarray, Any], expected: tuple[np.ndarray, Any]) -> None:
    # Sums over the batch come in another order: the last digits differ, and ten steps of Adam carry that on.
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-3), found[1], expected[1])


@pytest.mark.parametrize("layout", ["2", "4", "8", "2x4"])
def test_the_numbers_are_those_of_one_device(layout: str, tmp_path: Path, one_device: tuple[np.ndarray, Any]) -> None:
    assert_near(run(layout, tmp_path), one_device)


@pytest.mark.parametrize(("before", "after"), [("8", "1"), ("2x4", "1")])
def test_a_run_goes_on_with_other_devices(
    before: str, after: str, tmp_path: Path, one_device: tuple[np.ndarray, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(*arguments: Any) -> dict[str, float]:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        # The first epoch is saved, the second one is not.
        patch.setattr("convnext_jax.run.loop._Training._evaluate_and_save", _once_then(stop))
        run(before, tmp_path)
    assert_near(run(after, tmp_path), one_device)


def _once_then(stop: Any) -> Any:
    from convnext_jax.run.loop import _Training

    whole, calls = _Training._evaluate_and_save, []

    def call(self: Any) -> None:
        calls.append(1)
        (whole if len(calls) == 1 else stop)(self)

    return call


def test_one_sum_over_the_devices_in_a_step_and_nothing_of_the_data() -> None:
    found = collectives(_text("8", TINY))
    gradient = 8_100 - 2 * 8  # those of the first two layer scales follow from those of kernels
    scalars = 2  # the loss and the accuracy
    assert found == {"all-reduce": [gradient + scalars]}


def test_a_split_state_is_gathered_once_in_a_step_and_its_gradient_summed_once() -> None:
    plan = make_plan(experiment_of(), DATASET, Sharding(make_mesh(fsdp=4)))
    sizes = [leaf.size for leaf in jax.tree.leaves(plan.state.params)]
    split = sum(size for size in sizes if size >= 2**14)
    assert split > 0.5 * sum(sizes)
    found = collectives(_text("2x4", WIDE))
    assert set(found) == {"all-reduce", "all-gather"}
    assert sum(found["all-gather"]) == split
    # XLA's CPU compiler has no reduce-scatter. It adds up a whole gradient over fsdp, takes a part of it, and adds up
    # that over data.
    assert sum(sizes) <= sum(found["all-reduce"]) < 1.01 * (sum(sizes) + split / 4)


def test_each_device_keeps_its_images_where_a_state_is_split() -> None:
    # The CPU's compiler does so by itself. TPU's gathered the batch of a large network on every chip.
    def products_kept_apart(layout: str) -> int:
        devices, fsdp = LAYOUTS[layout]
        plan = make_plan(experiment_of(), DATASET, Sharding(make_mesh(jax.devices()[:devices], fsdp=fsdp)))
        text = lower_train_steps(plan.spec, plan.state).as_text()
        batch = plan.experiment.run.batch_size
        return len(re.findall(rf'sharding_constraint %\S+ <@mesh, \[{{"data", "fsdp"}}.*tensor<{batch}x\d+x', text))

    assert products_kept_apart("2x4") > 3 * sum(WIDE.depths) and products_kept_apart("8") == 0


def test_batch_norm_adds_up_its_statistics_and_nothing_larger() -> None:
    plan = make_plan(experiment_of(RESNET), DATASET, Sharding(make_mesh()))
    gradient = sum(leaf.size for leaf in jax.tree.leaves(plan.state.params))
    found = collectives(_text("8", RESNET))
    assert set(found) == {"all-reduce"}
    assert gradient <= sum(found["all-reduce"]) < 1.2 * gradient
