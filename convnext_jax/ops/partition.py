"""How many devices the program that is being traced is for, where an algorithm depends on it."""

from collections.abc import Callable

import jax


def batch_parts() -> int:
    """Returns the number of devices that a batch is split over, that of the mesh in `jax.set_mesh`; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


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
