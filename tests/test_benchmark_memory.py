"""Timing and memory of the benchmark: turns, ceilings, plans by hand, the largest batch against known limits."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh
from tiny import TINY_MODEL, tiny_experiment

from convnext_jax.config import AugmentConfig, Experiment, OptimConfig, RunConfig
from convnext_jax.data.registry import Extent
from convnext_jax.sharding import make_mesh
from convnext_jax.tools import benchmark_batch, benchmark_memory, benchmark_timing
from convnext_jax.tools.benchmark.batch import batch_table, batch_unit, largest_batch, largest_batches, training_bytes
from convnext_jax.tools.benchmark.memory import free_memory, memory_limit, program_bytes
from convnext_jax.tools.benchmark.timing import matmul_ceiling, time_calls


def tiny(**run: Any) -> Experiment:
    return dataclasses.replace(tiny_experiment(**run), model=TINY_MODEL)


@pytest.fixture
def mesh() -> Mesh:
    return make_mesh(jax.devices()[:1])


def test_calls_take_turns_and_the_first_is_not_counted() -> None:
    turns: list[str] = []
    rounds: list[int] = []
    calls = {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}
    seconds = time_calls(calls, 3, lambda number, seconds: rounds.append(number))
    assert turns == ["a", "b"] * 4 and rounds == [0, 1, 2, 3]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_ceiling_counts_each_device_and_each_product(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that takes a millisecond for each product of a device's own.
    monkeypatch.setattr(benchmark_timing, "_fastest", lambda x, kernel, *, products, repeats: products * 1e-3)
    rates = matmul_ceiling("float32", make_mesh(jax.devices()[:2]), (8, 16))
    assert rates == pytest.approx({8: 2 * 2 * 8**3 / 1e-3, 16: 2 * 2 * 16**3 / 1e-3})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_done_as_often_as_it_is_counted(dtype: str) -> None:
    x, kernel = jnp.full((4, 2), 3, dtype), jnp.eye(2, dtype=dtype) * 2
    done = benchmark_timing._multiply(x, kernel, jnp.int32(5))
    assert done.dtype == dtype and (done == 3 * 2**5).all()
    assert matmul_ceiling(dtype, make_mesh(jax.devices()[:2]), (16,), seconds=1e-3, repeats=2)[16] > 0


def test_the_memory_of_a_program_by_hand() -> None:
    x = jnp.ones(1000, jnp.float32)
    assert program_bytes(jax.jit(lambda x: x + 1).lower(x).compile()) == 8000
    # In place.
    assert program_bytes(jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()) == 4000


def test_cpu_devices_share_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = free_memory()
    assert free is not None and 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(benchmark_memory, "free_memory", lambda: 1000)
    assert memory_limit(make_mesh(jax.devices()[:4])) == 250


def test_the_plan_grows_with_the_batch_and_holds_the_data(mesh: Mesh) -> None:
    needed = training_bytes(tiny(), Extent(16, 16, 4, 200), mesh)
    small, large = needed(8), needed(128)
    assert small is not None and large is not None
    # What a backward pass surely keeps of each image: the inputs and outputs of the first stage's wide layer.
    assert large - small > 120 * 8 * 8 * (8 + 32) * 4
    more = training_bytes(tiny(), Extent(16, 16, 4, 1200), mesh)(8)
    assert more is not None
    assert more - small >= 1000 * (16 * 16 * 3 + 4)


@pytest.mark.parametrize(
    ("needed", "limit", "fitting"),
    [
        (lambda batch: 1000 + 7 * batch, 8000, 1000),
        (lambda batch: 10**6 + 3000 * batch + (batch % 7) * 10**5, 2 * 10**8, 66_000),
        (lambda batch: 100 * batch, 100 * 63, 60),  # less than the batch to begin with
        (lambda batch: None if batch > 900 else 10, 100, 900),  # a compiler that refuses
        (lambda batch: 5, 100, 10**5),  # all of them
        (lambda batch: batch, 3, 0),
        (lambda batch: batch**2, 10**6, 1000),
    ],
)
def test_the_largest_batch_is_found(needed: Callable[[int], int | None], limit: int, fitting: int) -> None:
    best = largest_batch(needed, limit, first=64, unit=4, most=100_000)
    assert fitting * 15 / 16 - 4 <= best.batch_size <= fitting
    assert best.batch_size % 4 == 0 and all(batch % 4 == 0 for batch in best.bytes_by_batch)
    assert len(best.bytes_by_batch) <= 12
    used = best.bytes_by_batch.get(best.batch_size, 0)
    assert used is not None and used <= limit


def test_a_straight_line_takes_few_compilations() -> None:
    best = largest_batch(lambda batch: 10**8 + 10**6 * batch, 8 * 10**9, first=64, unit=2, most=50_000)
    assert best.batch_size > 7400 and len(best.bytes_by_batch) <= 5


def test_what_a_batch_must_be_a_multiple_of() -> None:
    plain = Experiment(augment=AugmentConfig(), run=RunConfig(batch_size=6))
    assert batch_unit(plain, make_mesh(jax.devices()[:3])) == 3
    mixed = Experiment(augment=AugmentConfig(mixup_alpha=0.2), optim=OptimConfig(accumulation=3))
    assert batch_unit(mixed, make_mesh(jax.devices()[:3])) == 18
    assert batch_unit(mixed, make_mesh(jax.devices()[:2])) == 6


def test_largest_batches_of_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned(experiment: Experiment, extent: Extent, mesh: Mesh) -> Callable[[int], int]:
        return lambda batch: 1000 + batch * (1 if experiment.model.remat else 10)

    monkeypatch.setattr(benchmark_batch, "training_bytes", planned)
    monkeypatch.setattr(benchmark_memory, "free_memory", lambda: 4 * 3000)
    result = largest_batches(tiny(), Extent(16, 16, 4, 4000), make_mesh(jax.devices()[:4]))
    assert result["limit_bytes_per_device"] == 3000
    kept, again = result["remat"]["False"], result["remat"]["True"]
    assert 188 <= kept["batch_size"] <= 200 and 1880 <= again["batch_size"] <= 2000
    assert kept["bytes_per_device"] == kept["bytes_by_batch"][str(kept["batch_size"])] <= 3000
    assert [line.split()[0] for line in batch_table(result).splitlines()[1:]] == ["remat", "False", "True"]
    # BatchNorm goes without.
    norm = dataclasses.replace(tiny(), model=dataclasses.replace(TINY_MODEL, norm="batch"))
    assert list(largest_batches(norm, Extent(16, 16, 4, 4000), make_mesh(jax.devices()[:4]))["remat"]) == ["False"]
