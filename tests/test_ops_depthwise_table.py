"""The table that chooses the depthwise convolution's algorithm, and the command that measures it."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.errors import UserError
from convnext_jax.ops import depthwise, depthwise_conv, depthwise_table
from convnext_jax.ops.depthwise_table import Device, Row, fastest, read_table, write_table
from convnext_jax.tools import measure_depthwise


def row(size: int, side: int, channels: int, forward: dict[str, float], dtype: str = "float32") -> Row:
    return Row(dtype, size, side, side, channels, 64, forward, {"conv": 3.0, "shift": 2.0})


@pytest.fixture
def table(monkeypatch):
    """A function that puts devices in the place of the table's."""

    def replace(*devices: Device) -> None:
        depthwise_table._measured_rows.cache_clear()
        jax.clear_caches()
        monkeypatch.setattr(depthwise_table, "read_table", lambda: devices)

    yield replace
    depthwise_table._measured_rows.cache_clear()
    jax.clear_caches()


def test_the_packaged_table_is_of_cpus_and_says_what_is_not_measured():
    devices = {device.platform: device for device in read_table()}
    assert len(devices["cpu"].rows) > 40
    assert not devices["cuda"].rows and devices["cuda"].machine == "not measured"
    for measured in devices["cpu"].rows:
        for times in (measured.forward, measured.kernel_gradient):
            assert set(times) <= set(depthwise.IMPLEMENTATIONS) and "conv" in times
            assert min(times.values()) > 0
    assert fastest("forward", "cuda", (8, 8, 8, 96), 7, "bfloat16") is None


@pytest.mark.parametrize(
    ("shape", "size", "dtype", "chosen"),
    [
        ((1, 4, 4, 96), 7, "float32", "banded"),
        ((4096, 4, 4, 96), 7, "float32", "banded"),
        ((1, 5, 4, 64), 7, "float32", "banded"),
        ((1, 13, 13, 96), 7, "float32", "shift"),
        ((1, 4, 4, 96), 3, "float32", "conv"),
        ((1, 16, 16, 96), 7, "bfloat16", "pallas"),
        ((1, 4, 4, 96), 7, "bfloat16", "banded"),
    ],
)
def test_the_nearest_row_chooses_whatever_the_batch(table, shape, size: int, dtype: str, chosen: str):
    table(
        Device(
            "cpu",
            "cpu",
            "",
            (
                row(7, 4, 96, {"conv": 9.0, "banded": 1.0}),
                row(7, 16, 96, {"conv": 9.0, "shift": 1.0}),
                row(3, 4, 96, {"conv": 1.0, "shift": 9.0}),
                row(7, 16, 96, {"conv": 9.0, "pallas": 1.0}, "bfloat16"),
            ),
        )
    )
    assert fastest("forward", "cpu", shape, size, dtype) == chosen
    assert fastest("kernel_gradient", "cpu", shape, size, dtype) == "shift"


def test_forward_and_kernel_gradient_are_chosen_apart(table, monkeypatch):
    table(Device("cpu", "cpu", "", (row(7, 4, 96, {"conv": 9.0, "banded": 1.0}),)))
    monkeypatch.setitem(depthwise._CONVOLVE, "banded", lambda x, kernel: jnp.full_like(x, 12345.0))
    monkeypatch.setitem(depthwise._KERNEL_GRADIENT, "shift", lambda x, grad, size: jnp.full((7, 7, 3), 54321.0))
    x, kernel = jnp.ones((2, 4, 4, 3)), jnp.ones((7, 7, 1, 3))
    y, pull = jax.vjp(depthwise_conv, x, kernel)
    by_x, by_kernel = pull(y)
    assert (y == 12345.0).all() and (by_x == 12345.0).all()
    assert (by_kernel == 54321.0).all()


class Gpu:
    device_kind = "NVIDIA H100 80GB HBM3"


def test_rows_of_a_gpu_count_on_that_kind_alone(table, monkeypatch):
    rows = (row(7, 8, 96, {"conv": 2.0, "pallas": 1.0}),)
    table(Device("cuda", "NVIDIA H200*", "", rows), Device("cuda", "NVIDIA *", "", ()))
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu()])
    assert fastest("forward", "cuda", (8, 8, 8, 96), 7, "float32") is None
    table(Device("cuda", "NVIDIA *", "", ()), Device("cuda", "NVIDIA H100*", "", rows))
    assert fastest("forward", "cuda", (8, 8, 8, 96), 7, "float32") == "pallas"
    # The choice is that of the platform compiled for.
    with monkeypatch.context() as patch:
        patch.setitem(depthwise._CONVOLVE, "pallas", lambda x, kernel: x * 12345.0)
        traced = jax.jit(depthwise_conv).trace(np.ones((2, 8, 8, 3), np.float32), np.ones((7, 7, 3), np.float32))
    assert "1.234500e+04" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "1.234500e+04" not in traced.lower(lowering_platforms=("cpu",)).as_text()


def test_a_map_of_too_many_values_is_left_to_the_library(table, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Gpu()])
    table(Device("cuda", "NVIDIA *", "", (row(7, 8, 96, {"conv": 2.0, "pallas": 1.0}),)))
    x = jax.ShapeDtypeStruct((2**20, 8, 8, 32), np.float32)
    traced = jax.jit(depthwise_conv).trace(x, jax.ShapeDtypeStruct((7, 7, 32), np.float32))
    assert "convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_a_table_is_read_as_it_was_written(tmp_path):
    devices = [
        Device("cuda", "NVIDIA *", "not measured", ()),
        Device("cpu", "cpu", "one", (row(7, 4, 96, {"conv": 1.0}),)),
    ]
    write_table(tmp_path / "table.json", devices)
    assert read_table(tmp_path / "table.json") == devices
    write_table(tmp_path / "packaged.json", read_table())
    assert (tmp_path / "packaged.json").read_text() == depthwise_table.TABLE.read_text()


def test_measuring_replaces_the_rows_of_the_same_shapes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.json"
    old = Row("float32", 7, 1, 1, 768, 3, {"conv": 0.0}, {"conv": 0.0})
    kept = row(3, 8, 192, {"conv": 1.0})
    others = Device("tpu", "TPU *", "not measured", ())
    write_table(path, [others, Device("cpu", "cpu", "another", (old, kept))])
    monkeypatch.setattr(measure_depthwise, "_ROUNDS", 1)
    arguments = ["--map_size", "1", "--dtype", "float32", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["measure_depthwise", *arguments])
    measure_depthwise.main()
    cpu, other = read_table(path)
    assert other == others and cpu.platform == "cpu" and jax.__version__ in cpu.machine
    assert kept in cpu.rows and len(cpu.rows) == 2
    (new,) = (measured for measured in cpu.rows if measured != kept)
    assert new.shape == old.shape and new.batch == 64
    assert set(new.forward) == set(new.kernel_gradient) == {"conv", "shift", "banded"}
    assert min(new.forward.values()) > 0
    assert "float32   7x7  [64,1,1,768]" in capsys.readouterr().out


def test_measuring_what_is_no_row_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure_depthwise", "--map_size", "9"])
    with pytest.raises(UserError, match="--map_size 9 is no shape of the table; name fewer of the three"):
        measure_depthwise.main()


def test_a_table_that_could_not_be_written_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure_depthwise", "--output", "absent/table.json"])
    with pytest.raises(UserError, match="--output absent/table.json: there is no folder absent"):
        measure_depthwise.main()
