"""The devices that the program that is being traced is for, where an algorithm depends on them."""

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec


def batch_parts() -> int:
    """Returns the number of devices that a batch is split over, that of the mesh in `jax.set_mesh`; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def keep_images_apart(x: jax.Array) -> jax.Array:
    """Returns a batch, of which each device keeps its own images where the devices share one copy of the parameters.

    There the gradient of a kernel is split over its channels. In a large network XLA follows that back to the feature
    maps: it gathers the whole batch on every device, and splits the channels of the products instead.

    Args:
      x: [B,...], of a batch that is split over the devices of the mesh in `jax.set_mesh`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1 or x.shape[0] % mesh.size:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(mesh.axis_names))


def sum_over_parts(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Calls a function that is a sum over the batch so that each device finishes its own part before they are added up.

    XLA adds up over the devices as soon as it can, though what follows may leave little of what it then moves: of the
    products of banded matrices only the bands.

    Args:
      function: of the arrays, linear in each, a sum over their leading axis.
      *arrays: [B,...].
    """
    parts, batch = batch_parts(), arrays[0].shape[0]
    if parts == 1 or batch % parts:
        return function(*arrays)
    split = [array.reshape(parts, batch // parts, *array.shape[1:]) for array in arrays]
    return jax.vmap(function)(*split).sum(0)
