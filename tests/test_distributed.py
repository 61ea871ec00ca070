"""How many devices a CPU is shown as, and what a mesh refuses."""

import os

import jax
import pytest

from convnext_jax import distributed
from convnext_jax.errors import UserError


@pytest.mark.parametrize(
    ("cores", "batch_size", "devices"),
    [(2, 128, 2), (8, 128, 8), (12, 128, 8), (64, 128, 8), (6, 125, 5), (2, 125, 1), (4, 8, 1)],
)
def test_a_batch_is_split_evenly_over_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, batch_size: int, devices: int
):
    chosen = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    monkeypatch.setattr(jax.config, "update", lambda name, value: chosen.append((name, value)))
    distributed.use_all_cores(batch_size)
    assert chosen == [("jax_num_cpu_devices", devices)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_NUM_CPU_DEVICES", "3"), ("XLA_FLAGS", "--xla_force_host_platform_device_count=3")],
)
def test_what_the_user_chose_stands(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.config, "update", lambda *_: pytest.fail("the number of devices was changed"))
    distributed.use_all_cores(128)


def test_a_batch_that_does_not_split_is_refused_with_two_that_do():
    mesh = distributed.make_mesh()
    distributed.check_batch_size("config.run.batch_size", 64, mesh)
    with pytest.raises(UserError, match=r"config\.run\.batch_size=12 is not a multiple of the 8 devices; take 8 or 16"):
        distributed.check_batch_size("config.run.batch_size", 12, mesh)
    with pytest.raises(UserError, match="batch_size=5 .*take 8$"):
        distributed.check_batch_size("batch_size", 5, mesh)


def test_auto_is_float32_on_a_cpu():
    assert distributed.compute_dtype("auto") == "float32"
    assert distributed.compute_dtype("bfloat16") == "bfloat16"
