"""The mesh, how arrays lie on it, and batches that cannot be split."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convnext_jax.errors import UserError
from convnext_jax.models.parameters import abstract_model
from convnext_jax.models.registry import create_model
from convnext_jax.sharding import Sharding, abstract, make_mesh, put


def test_a_mesh_is_over_all_devices_or_the_given_ones() -> None:
    assert Sharding(make_mesh()).num_devices == 8
    mesh = make_mesh(jax.devices()[2:5])
    assert list(mesh.devices.flat) == jax.devices()[2:5] and dict(mesh.shape) == {"data": 3, "fsdp": 1}
    assert dict(make_mesh(fsdp=4).shape) == {"data": 2, "fsdp": 4}


def test_a_mesh_that_does_not_fit_the_devices_is_refused() -> None:
    message = r"config\.run\.fsdp=3 does not divide the number of devices, 8; choose from 1, 2, 4, 8"
    with pytest.raises(UserError, match=message):
        make_mesh(fsdp=3)


@dataclasses.dataclass(frozen=True)
class StandIn:
    """What arranging the devices of a TPU or of hosts with GPUs asks of a device that is not here."""

    id: int
    coords: tuple[int, int, int]
    platform: str
    device_kind: str
    slice_index: int
    process_index: int = 0
    core_on_chip: int = 0


def stand_ins(platform: str, kind: str, sides: tuple[int, int, int], slices: int = 1) -> list[StandIn]:
    places = itertools.product(range(slices), *map(range, reversed(sides)))
    return [StandIn(number, (x, y, z), platform, kind, part) for number, (part, z, y, x) in enumerate(places)]


@pytest.mark.parametrize(("kind", "sides"), [("TPU v6 lite", (4, 4, 1)), ("TPU v4", (4, 4, 4)), ("TPU v5", (2, 2, 4))])
@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_any_part_of_a_torus_holds_a_copy_of_the_state(kind: str, sides: tuple[int, int, int], fsdp: int) -> None:
    devices = stand_ins("tpu", kind, sides)
    mesh = make_mesh(devices, fsdp=fsdp)
    assert dict(mesh.shape) == {"data": len(devices) // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.flat) == set(devices)


@pytest.mark.parametrize(
    ("platform", "kind", "sides"), [("gpu", "NVIDIA H100", (4, 1, 1)), ("tpu", "TPU v5 lite", (2, 2, 1))]
)
@pytest.mark.parametrize("fsdp", [1, 2, 4])
def test_each_host_and_each_slice_has_copies_of_its_own(
    platform: str, kind: str, sides: tuple[int, int, int], fsdp: int
) -> None:
    devices = stand_ins(platform, kind, sides, slices=3)
    mesh = make_mesh(devices[::-1], fsdp=fsdp)
    assert dict(mesh.shape) == {"data": 12 // fsdp, "fsdp": fsdp}
    assert set(mesh.devices.flat) == set(devices)
    assert all(len({device.slice_index for device in row}) == 1 for row in mesh.devices)


def test_a_copy_of_the_state_may_be_spread_over_hosts() -> None:
    devices = stand_ins("gpu", "NVIDIA H100", (2, 1, 1), slices=2)
    assert make_mesh(devices, fsdp=4).devices.tolist() == [devices]


def test_a_batch_is_split_and_all_else_is_whole_on_each_device() -> None:
    sharding, x = Sharding(make_mesh(jax.devices()[:4])), np.arange(24.0).reshape(8, 3)
    parts = jax.device_put(x, sharding.batch).addressable_shards
    np.testing.assert_array_equal(np.concatenate([part.data for part in parts]), x)
    assert [part.data.shape for part in parts] == [(2, 3)] * 4
    for whole in (sharding.replicated, sharding.state(x)):
        for part in jax.device_put(x, whole).addressable_shards:
            np.testing.assert_array_equal(part.data, x)


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((768, 3072), (768, 768)),  # the longest axis
        ((3072, 768), (768, 768)),
        ((7, 7, 1, 768), (7, 7, 1, 192)),
        ((768, 101), (192, 101)),  # the longest that four devices divide
        ((301, 301), (301, 301)),  # none
        ((768,), (768,)),  # too small to be worth it
        ((), ()),
    ],
)
def test_large_arrays_of_the_state_are_split_over_fsdp(shape: tuple[int, ...], part: tuple[int, ...]) -> None:
    sharding = Sharding(make_mesh(fsdp=4))
    array = np.arange(float(np.prod(shape))).reshape(shape)
    placed = put({"x": array}, sharding.state({"x": array}))["x"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {part}
    np.testing.assert_array_equal(placed, array)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_xlarge", "vit_base_patch16", "resnet50", "swin_base"])
def test_almost_all_of_a_network_is_split(name: str) -> None:
    params = abstract_model(lambda: create_model(name, num_classes=1000)).params
    sharding, whole, split = Sharding(make_mesh(fsdp=8)), 0, 0
    for leaf, where in zip(jax.tree.leaves(params), jax.tree.leaves(sharding.state(params)), strict=True):
        whole, split = whole + leaf.size, split + np.prod(where.shard_shape(leaf.shape))
    assert whole / 8 <= split < 1.15 * whole / 8


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
