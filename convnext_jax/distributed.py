"""Devices, the mesh over them, and how arrays lie on it: the one place where shardings are decided."""

import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convnext_jax.errors import UserError


def use_all_cores(batch_size: int) -> None:
    """Makes JAX show a CPU as several devices, so that a batch is split over its cores; call before any other JAX.

    XLA runs many of its loops on one core. Two devices of one core each took 1.4 times the images of one device of
    two cores (ConvNeXt atto, 24 px, batch 128; benchmarks/cifar100_cpu.md). Where there is an accelerator nothing
    changes, and a number that the user gives in ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS`` stands.

    Args:
      batch_size: images a step; the devices are the most that split it evenly and get 16 images each or more.
    """
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = [count for count in range(1, cores + 1) if batch_size % count == 0 and batch_size // count >= 16]
    jax.config.update("jax_num_cpu_devices", max(fitting, default=1))


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """The devices, all of all processes if None, on one axis, ``data``, which a batch is split over.

    The axis is of type Auto: XLA propagates shardings through the step from the few that are named here.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(field: str, batch_size: int, mesh: Mesh) -> None:
    """Raises UserError where a batch cannot be split evenly over the devices."""
    if batch_size % mesh.size:
        lower = batch_size - batch_size % mesh.size
        choices = f"{lower} or {lower + mesh.size}" if lower else str(mesh.size)
        raise UserError(f"{field}={batch_size} is not a multiple of the {mesh.size} devices; take {choices}")


def abstract(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes and dtypes of a tree of arrays, with the sharding that they shall have."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def compute_dtype(name: str) -> str:
    """What ``config.model.dtype`` means on this machine: ``auto`` is float32 on a CPU, else bfloat16."""
    if name != "auto":
        return name
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"
