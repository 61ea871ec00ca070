"""The mesh, how arrays lie on it, and batches that cannot be split."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.errors import UserError
from convnext_jax.sharding import Sharding, abstract, make_mesh


def test_a_mesh_is_over_all_devices_or_the_given_ones() -> None:
    assert Sharding(make_mesh()).num_devices == 8
    mesh = make_mesh(jax.devices()[2:5])
    assert list(mesh.devices) == jax.devices()[2:5] and mesh.axis_names == ("data",)


def test_a_batch_is_split_and_all_else_is_whole_on_each_device() -> None:
    sharding, x = Sharding(make_mesh(jax.devices()[:4])), np.arange(24.0).reshape(8, 3)
    parts = jax.device_put(x, sharding.batch).addressable_shards
    np.testing.assert_array_equal(np.concatenate([part.data for part in parts]), x)
    assert [part.data.shape for part in parts] == [(2, 3)] * 4
    for whole in (sharding.replicated, sharding.state):
        for part in jax.device_put(x, whole).addressable_shards:
            np.testing.assert_array_equal(part.data, x)


def test_abstract_arrays_have_the_sharding_that_they_shall_have() -> None:
    sharding = Sharding(make_mesh())
    found = abstract({"x": jnp.ones((8, 3), jnp.bfloat16)}, sharding.batch)["x"]
    assert (found.shape, found.dtype, found.sharding) == ((8, 3), jnp.bfloat16, sharding.batch)


def test_a_batch_that_does_not_split_is_refused_with_two_that_do() -> None:
    sharding = Sharding(make_mesh())
    sharding.check_batch_size("config.run.batch_size", 64)
    with pytest.raises(UserError, match=r"config\.run\.batch_size=12 is not a multiple of the 8 devices; take 8 or 16"):
        sharding.check_batch_size("config.run.batch_size", 12)
    with pytest.raises(UserError, match="batch_size=5 .*take 8$"):
        sharding.check_batch_size("batch_size", 5)
