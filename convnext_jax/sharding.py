"""Devices, the mesh over them, and how arrays lie on it: the one place where shardings are decided."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convnext_jax.errors import UserError


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
