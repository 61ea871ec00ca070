"""The devices, the mesh over them, and how arrays lie on it: the one place where shardings are decided."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convnext_jax.errors import UserError


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the devices, by default all of all processes, on one axis, ``data``, that a batch is split over.

    The axis is of type Auto: XLA propagates shardings through the step from the few that are named here.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How arrays lie on the devices. Everything that places an array is handed one.

    Attributes:
      mesh: the devices.
    """

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The leading axis split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def state(self) -> NamedSharding:
        """That of the parameters, the optimizer's state and the moving averages."""
        return self.replicated

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def check_batch_size(self, field: str, batch_size: int) -> None:
        """Raises UserError if a batch cannot be split evenly over the devices."""
        if batch_size % self.num_devices:
            lower = batch_size - batch_size % self.num_devices
            choices = f"{lower} or {lower + self.num_devices}" if lower else str(self.num_devices)
            raise UserError(f"{field}={batch_size} is not a multiple of the {self.num_devices} devices; take {choices}")


def abstract(tree: Any, sharding: NamedSharding) -> Any:
    """Returns the shapes and dtypes of a tree of arrays, with the sharding that they shall have."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
