"""Batches that are read from the host: those of a split on the devices, to the last bit, whatever is asked next."""

import dataclasses
import functools
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_batches import SHARDING, split_of
from test_run_loop import Watched, without_clocks
from tiny import tiny_dataset, tiny_experiment

from convnext_jax.batches.order import host_order
from convnext_jax.batches.resident import ResidentSource, put_split
from convnext_jax.batches.streaming import StreamingSource, is_streamed
from convnext_jax.config import Experiment
from convnext_jax.data.dataset import Split
from convnext_jax.models.lenet import LeNetArchitecture
from convnext_jax.run.loop import Stopped, train
from convnext_jax.run.prepare import make_plan, prepare
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.train.compiler import StepCompiler
from convnext_jax.workdir.checkpoints import Checkpoints


def streaming(split: Split, most_steps: int = 5, **options: Any) -> StreamingSource:
    settings = {"seed": 3, "batch_size": 16, "sharding": SHARDING, "most_steps": most_steps, **options}
    return StreamingSource(split, **settings)


@pytest.mark.parametrize("shape", [(8, 1), (2, 4)])
def test_batches_are_those_of_a_resident_split(shape: tuple[int, int]):
    sharding = dataclasses.replace(SHARDING, mesh=make_mesh(fsdp=shape[1]))
    split = split_of(103)
    resident = ResidentSource(put_split(split, sharding), seed=3, batch_size=16, sharding=sharding)
    source = streaming(split, sharding=sharding)
    assert (source.num_examples, source.steps_per_epoch) == (103, 6)
    takes = [jax.jit(each.batch) for each in (resident, source)]
    # In turn, a jump ahead, back, the same call again, and a shorter one than was read ahead.
    for first, count in ((0, 3), (3, 3), (6, 3), (20, 4), (1, 2), (1, 2), (3, 1), (4, 2)):
        feeds = [each.feed(first, count) for each in (resident, source)]
        for index in range(count):
            expected, found = (take(feed, index) for take, feed in zip(takes, feeds, strict=True))
            for name in ("images", "labels", "indices", "epoch"):
                ours, theirs = getattr(found, name), getattr(expected, name)
                np.testing.assert_array_equal(ours, theirs, err_msg=name)
                assert ours.dtype == theirs.dtype
                assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim) or name == "epoch"
    source.close()


def test_shapes_to_compile_with_are_those_of_every_call():
    source = streaming(split_of(103, channels=1), most_steps=4)
    abstract = source.abstract_feed()
    expected = [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(abstract)]
    for first, count in ((0, 3), (3, 3), (23, 1)):
        feed = source.feed(first, count)
        assert [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(feed)] == expected
        assert jax.tree.structure(feed) == jax.tree.structure(abstract)
    source.close()


def test_the_next_call_is_read_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    source, read, done = streaming(split_of(103)), [], threading.Event()
    original = StreamingSource._read

    def noted(self: StreamingSource, first_step: int, num_steps: int) -> Any:
        feed = original(self, first_step, num_steps)
        read.append((first_step, num_steps, threading.current_thread() is threading.main_thread()))
        if len(read) == 2:
            done.set()
        return feed

    monkeypatch.setattr(StreamingSource, "_read", noted)
    source.feed(0, 3)
    assert done.wait(20)
    assert read == [(0, 3, False), (3, 3, False)]
    source.close()


# --- a run


@functools.cache
def compiler_for(resident: str) -> StepCompiler:
    """One for all runs that have the same steps."""
    return StepCompiler()


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convnext_jax.report.curves.plot_curves", lambda *arguments: None)


def run(
    experiment: Experiment, workdir: Path, resident: str, before: Callable[[int], None] = lambda step: None
) -> None:
    """A run on two of the devices."""
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, resident=resident))
    mesh, compiler = make_mesh(jax.devices()[:2]), Watched(before, compiler=compiler_for(resident))
    with prepare(experiment, workdir, mesh, compiler=compiler, dataset=DATASET) as prepared:
        assert isinstance(prepared.source, StreamingSource) is (resident == "never")
        train(prepared)


NETWORK = LeNetArchitecture((4, 4, 8), 8)  # it compiles in a moment
DATASET = tiny_dataset(size=32)
EXPERIMENT = tiny_experiment(NETWORK, epochs=3, steps_per_dispatch=2)
EXPERIMENT = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(EXPERIMENT.model, name="lenet5"))


def last_arrays(workdir: Path) -> Any:
    plan = make_plan(EXPERIMENT, DATASET, Sharding(make_mesh(jax.devices()[:1])))
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step()
        assert step is not None
        names = ("params", "ema", "opt_state")
        return checkpoints.restore(step, {name: getattr(plan.state, name) for name in names})


def assert_same(*workdirs: Path) -> None:
    ours, theirs = map(without_clocks, workdirs)
    assert ours == theirs
    trees = map(last_arrays, workdirs)
    for ours, theirs in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_streamed_run_is_the_resident_one_and_stopped_it_goes_on_to_the_last_bit(tmp_path: Path):
    resident, streamed, broken = (tmp_path / name for name in ("resident", "streamed", "broken"))
    run(EXPERIMENT, resident, "always")
    run(EXPERIMENT, streamed, "never")
    lines = [without_clocks(workdir) for workdir in (resident, streamed)]
    assert len(lines[0]) == len(lines[1]) == 12  # three calls and an evaluation in each of three epochs
    for ours, theirs in zip(*lines, strict=True):
        # The same batches in two programs: XLA's CPU compiler fuses them, and rounds, in its own way.
        assert ours == pytest.approx(theirs, rel=1e-5)

    def preempt(step: int) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="SIGTERM: saved step 9 of 15"):
        run(EXPERIMENT, broken, "never", preempt)
    # It may go on either way.
    shutil.copytree(broken, tmp_path / "other")
    run(EXPERIMENT, broken, "never")
    assert_same(streamed, broken)
    run(EXPERIMENT, tmp_path / "other", "always")
    assert without_clocks(tmp_path / "other")[-1] == pytest.approx(lines[0][-1], rel=1e-4)


# --- what is read, and by whom


@pytest.mark.parametrize("fsdp", [1, 4])
def test_a_process_reads_the_rows_of_its_own_devices_alone(monkeypatch: pytest.MonkeyPatch, fsdp: int):
    split, sharding = split_of(103), dataclasses.replace(SHARDING, mesh=make_mesh(fsdp=fsdp))
    # As a process sees it that has the devices 2, 3 and 6 of the eight.
    own = [sharding.mesh.devices.flat[number] for number in (2, 3, 6)]
    everywhere = sharding.batch.addressable_devices_indices_map((16,))
    kind = type(sharding.batch)
    monkeypatch.setattr(
        kind, "addressable_devices_indices_map", lambda self, shape: {device: everywhere[device] for device in own}
    )
    read: list[np.ndarray] = []
    take = np.take

    def noted(array: np.ndarray, indices: np.ndarray, **how: Any) -> np.ndarray:
        read.append(indices)
        return take(array, indices, **how)

    monkeypatch.setattr(np, "take", noted)
    parts: list[np.ndarray] = []
    monkeypatch.setattr(StreamingSource, "_put", lambda self, array: parts.append(array))
    source = streaming(split, sharding=sharding)
    source._read(7, 2)
    order = host_order(3, 1, 103)
    positions = [4, 5, 6, 7, 12, 13]  # two rows of the batch on each device
    for number, step in enumerate((1, 2)):
        expected = order[16 * step : 16 * step + 16][positions]
        np.testing.assert_array_equal(read[0][number], expected)
        np.testing.assert_array_equal(parts[0][number], split.images[expected].reshape(6, -1))
        np.testing.assert_array_equal(parts[2][number], expected)
    assert len(read) == 1 and read[0].shape == (2, 6) and not parts[0][2:].any()


# --- which splits are streamed


@pytest.mark.parametrize(
    ("resident", "limit", "expected"),
    [
        ("auto", 4 * 6_592 - 1, True),  # 103 images of 4x5x3 bytes, and their labels, are 6,592 bytes
        ("auto", 4 * 6_592, False),
        ("auto", None, False),
        ("always", 1, False),
        ("never", None, True),
    ],
)
def test_what_takes_more_than_a_quarter_of_the_memory_is_streamed(resident: str, limit: int | None, expected: bool):
    assert is_streamed(resident, split_of(103), limit) is expected
