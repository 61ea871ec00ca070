"""The devices, the mesh over them, and how arrays lie on it: the one place where shardings are decided."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from convnext_jax.errors import UserError

# Arrays of at least this many numbers are split over the axis ``fsdp``. Below that, to gather an array takes longer
# than the memory is worth: in ConvNeXt-T these are the biases, the norms and some depthwise kernels, 1% of its numbers.
_SMALLEST_SPLIT = 2**14


def make_mesh(devices: Sequence[Any] | None = None, *, fsdp: int = 1) -> Mesh:
    """Returns the mesh of the devices, with the axes ``data`` and ``fsdp``.

    A batch is split over both axes, the state of the training over ``fsdp``. Neighbors, which a TPU and a host with
    several GPUs connect best, are on the axis ``fsdp``. Of several slices of TPUs, or hosts with GPUs, each has copies
    of the state of its own if ``fsdp`` divides their size. Both axes are of type Auto: XLA propagates shardings through
    the step from the few that are named here.

    Args:
      devices: by default all of all processes.
      fsdp: devices that share one copy of the state.

    Raises:
      UserError: fsdp does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) % fsdp:
        divisors = [str(number) for number in range(1, len(devices) + 1) if len(devices) % number == 0]
        raise UserError(
            f"config.run.fsdp={fsdp} does not divide the number of devices, {len(devices)};"
            f" choose from {', '.join(divisors)}"
        )
    return Mesh(_arranged(devices, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def _arranged(devices: Sequence[Any], fsdp: int) -> np.ndarray:
    """Returns the devices as [len(devices) // fsdp, fsdp].

    `jax.make_mesh` refuses several slices, and what would split an axis of a TPU's torus.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0), []).append(device)
    parts = [part for _, part in sorted(slices.items())]
    if any(len(part) % fsdp for part in parts):
        return np.array([device for part in parts for device in part]).reshape(-1, fsdp)
    return np.concatenate(
        [
            mesh_utils.create_device_mesh((len(part) // fsdp, fsdp), part, allow_split_physical_axes=True)
            for part in parts
        ]
    )


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How arrays lie on the devices. Everything that places an array is handed one.

    Attributes:
      mesh: the devices, as `make_mesh` returns them.
    """

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        """The whole array on each device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """The leading axis split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    @property
    def batches(self) -> NamedSharding:
        """The second axis split over the devices: the batches of several steps, one after another."""
        return NamedSharding(self.mesh, PartitionSpec(None, ("data", "fsdp")))

    @property
    def splits_state(self) -> bool:
        """Whether a device has only a part of the state."""
        return self.mesh.shape["fsdp"] > 1

    def state(self, tree: Any) -> Any:
        """Returns the shardings of parameters, moving averages and the optimizer's state, a tree like the one given.

        A large array is split over ``fsdp`` along its longest axis that the number of devices divides. All others are
        whole on each device. The shape alone decides, so that the optimizer's moments lie where their parameters do.

        Args:
          tree: of arrays or of their shapes.
        """
        return jax.tree.map(lambda leaf: NamedSharding(self.mesh, self._spec(leaf.shape)), tree)

    def _spec(self, shape: Sequence[int]) -> PartitionSpec:
        parts = self.mesh.shape["fsdp"]
        axes = [axis for axis, size in enumerate(shape) if size % parts == 0]
        if parts == 1 or not axes or np.prod(shape) < _SMALLEST_SPLIT:
            return PartitionSpec()
        longest = max(axes, key=lambda axis: shape[axis])
        return PartitionSpec(*(None,) * longest, "fsdp")

    def gathered(self, params: Any) -> Any:
        """Returns the parameters whole on each device, inside of a compiled program.

        Without this, XLA may split the channels of a layer instead of gathering its kernel, and move feature maps.
        """
        return jax.lax.with_sharding_constraint(params, self.replicated) if self.splits_state else params

    def scattered(self, grads: Any) -> Any:
        """Returns the gradient of the parameters where they lie, inside of a compiled program."""
        return jax.lax.with_sharding_constraint(grads, self.state(grads)) if self.splits_state else grads

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return self.mesh.size

    def rounded_up(self, batch_size: int) -> int:
        """Returns the smallest batch size, at least the given one, that can be split evenly over the devices."""
        return -(-batch_size // self.num_devices) * self.num_devices

    def check_batch_size(self, field: str, batch_size: int) -> None:
        """Raises UserError if a batch cannot be split evenly over the devices."""
        if batch_size % self.num_devices:
            lower = batch_size - batch_size % self.num_devices
            choices = f"{lower} or {lower + self.num_devices}" if lower else str(self.num_devices)
            raise UserError(f"{field}={batch_size} is not a multiple of the {self.num_devices} devices; take {choices}")


def abstract(tree: Any, shardings: Any) -> Any:
    """Returns the shapes and dtypes of a tree of arrays, with the shardings that they shall have.

    Args:
      tree: of arrays or of their shapes.
      shardings: one for all, or a tree of them.
    """
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda leaf: shardings, tree)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings
    )


def put(tree: Any, shardings: Any) -> Any:
    """Puts a tree of arrays on the devices, those of other processes included, each of which has the same tree.

    Args:
      tree: of arrays that are whole in this process.
      shardings: one for all, or a tree of them.
    """
    if all(sharding.is_fully_addressable for sharding in jax.tree.leaves(shardings)):
        return jax.device_put(tree, shardings)
    if isinstance(shardings, NamedSharding):
        shardings = jax.tree.map(lambda leaf: shardings, tree)

    # Not with `jax.device_put`, which first compares the values of all processes.
    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, tree, shardings)
