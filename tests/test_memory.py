"""Timing and memory of the benchmark: turns, ceilings, plans by hand, the largest batch against known limits."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_experiment

from convnext_jax.config import AugmentConfig, Experiment, OptimConfig, RunConfig
from convnext_jax.data.registry import Extent
from convnext_jax.memory import free_memory, memory_limit, program_bytes
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.sharding import Sharding, make_mesh
from convnext_jax.tools.benchmark.batch import batch_table, batch_unit, largest_batch, largest_batches, training_bytes
from convnext_jax.tools.benchmark.timing import matmul_ceiling, time_calls


def devices(count: int) -> Sharding:
    return Sharding(make_mesh(jax.devices()[:count]))


def test_calls_take_turns_and_the_first_is_not_counted() -> None:
    turns: list[str] = []
    rounds: list[int] = []
    calls = {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}
    seconds = time_calls(calls, 3, lambda number, seconds: rounds.append(number))
    assert turns == ["a", "b"] * 4 and rounds == [0, 1, 2, 3]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_time_of_a_call_is_its_own() -> None:
    seconds = time_calls({"slow": lambda: time.sleep(0.05), "quick": lambda: None}, 2)
    assert min(seconds["slow"]) >= 0.05 > max(seconds["quick"])


@pytest.mark.parametrize("count", [1, 2])
def test_the_ceiling_is_of_the_order_of_numpys(count: int) -> None:
    # Products that were not computed again and again, or counted too often, would be far beyond it.
    size = 256
    x = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    fastest = min(min(time_calls({"": lambda: x @ x}, 20)[""]) for _ in range(2))
    rates = matmul_ceiling("float32", devices(count), (size,), seconds=0.05, repeats=3)
    assert rates.keys() == {size}
    assert 1 / 100 < rates[size] / (2 * size**3 / fastest) < 100  # NumPy shares the machine with the other tests


def test_the_ceiling_of_another_dtype() -> None:
    assert matmul_ceiling("bfloat16", devices(2), (16, 32), seconds=1e-3, repeats=2).keys() == {16, 32}


def test_the_memory_of_a_program_by_hand() -> None:
    x = jnp.ones(1000, jnp.float32)
    assert program_bytes(jax.jit(lambda x: x + 1).lower(x).compile()) == 8000
    # In place.
    assert program_bytes(jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()) == 4000


def test_cpu_devices_share_the_free_memory() -> None:
    free = free_memory()
    assert free is not None and 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for count in (1, 4):
        # Other processes take and give back meanwhile.
        assert memory_limit(devices(count)) == pytest.approx(free / count, rel=0.25)


@pytest.mark.parametrize(
    ("groups", "own", "names", "prefix"),
    [
        ("0::/slurm/job", "sys/fs/cgroup/slurm", ("memory.max", "memory.current"), ""),
        ("0::/outside/of/it", "sys/fs/cgroup", ("memory.max", "memory.current"), ""),
        (
            "5:cpu,cpuacct:/job\n4:memory:/job",
            "sys/fs/cgroup/memory/job",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            "total_",
        ),
    ],
)
def test_a_container_s_files_are_no_use_of_its_memory(
    tmp_path: Path, groups: str, own: str, names: tuple[str, str], prefix: str
) -> None:
    files = {
        "proc/meminfo": "MemTotal: 16000 kB\nMemAvailable:   12000 kB\nHugePages_Total:       0\n",
        "proc/self/cgroup": f"{groups}\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert free_memory(tmp_path) == 12000 * 1024
    group = tmp_path / own
    group.mkdir(parents=True)
    for name, content in zip(names, ("8000000", "7500000"), strict=True):
        (group / name).write_text(f"{content}\n")
    (group / "memory.stat").write_text(f"anon 1000000\n{prefix}inactive_file 4000000\n{prefix}active_file 2000000\n")
    assert free_memory(tmp_path) == 8000000 - (7500000 - 6000000)
    (group / names[0]).write_text("max\n")
    assert free_memory(tmp_path) == 12000 * 1024


# A network of one block, which compiles quickly.
EXPERIMENT = tiny_experiment(ResNetArchitecture((1,), "basic", width=8, stem="conv3x3_s1"))


def test_the_plan_grows_with_the_batch_and_holds_the_data() -> None:
    needed = training_bytes(EXPERIMENT, Extent(16, 16, 4, 200), devices(1))
    small, large = needed(8), needed(128)
    assert small is not None and large is not None
    # What a backward pass surely keeps of each image: the inputs of the block's two convolutions.
    assert large - small > 120 * 16 * 16 * (8 + 8) * 4
    more = training_bytes(EXPERIMENT, Extent(16, 16, 4, 1200), devices(1))(8)
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
    assert batch_unit(plain, devices(3)) == 3
    mixed = Experiment(augment=AugmentConfig(mixup_alpha=0.2), optim=OptimConfig(accumulation=3))
    assert batch_unit(mixed, devices(3)) == 18
    assert batch_unit(mixed, devices(2)) == 6


def test_all_examples_fit_where_there_is_room_for_them() -> None:
    result = largest_batches(EXPERIMENT, Extent(16, 16, 4, 67, channels=1), devices(2))
    assert result["limit_bytes_per_device"] == pytest.approx(memory_limit(devices(2)), rel=0.25)
    kept, again = result["remat"]["False"], result["remat"]["True"]
    for found in (kept, again):
        # 67 are not a multiple of the devices.
        assert found["batch_size"] == 66
        assert found["bytes_per_device"] == found["bytes_by_batch"]["66"] > found["bytes_by_batch"]["8"]
    assert again["bytes_per_device"] < kept["bytes_per_device"]
    assert [line.split()[0] for line in batch_table(result).splitlines()[1:]] == ["remat", "False", "True"]
