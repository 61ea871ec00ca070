"""Depthwise convolution on NVIDIA GPUs: Pallas programs under `jax.jit`, `jax.vmap` and batches on several devices.

Not measured yet on a GPU: "auto" takes it only where the table of `convnext_jax.ops.depthwise_table` says that it is
faster. From 0.12 on jax calls Pallas's Triton backend deprecated; the successor, Mosaic, compiles for Hopper and later
alone. On a CPU the programs run in Pallas's interpreter, for tests.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convnext_jax.ops.depthwise_triton import WARPS, Tiling, convolve_program, kernel_gradient_program

# Programs of a kernel gradient walk over several strips, as long as that leaves two programs for each of an H100's
# multiprocessors: each program ends in k^2 sums across its threads.
_STRIPS = 8
_PROGRAMS = 264


def _call(program: Callable[..., None], programs: int, out: jax.ShapeDtypeStruct, *operands: jax.Array) -> jax.Array:
    """Runs a program as often on flat arrays; where it is compiled for a CPU, by Pallas's interpreter."""

    def run(interpret: bool, *operands: jax.Array) -> jax.Array:
        return pl.pallas_call(
            program,
            out_shape=jax.ShapeDtypeStruct((math.prod(out.shape),), out.dtype),
            grid=(programs,),
            compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
            interpret=interpret,
        )(*(operand.reshape(-1) for operand in operands)).reshape(out.shape)

    compiled, interpreted = functools.partial(run, False), functools.partial(run, True)
    return jax.lax.platform_dependent(*operands, cpu=interpreted, default=compiled)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    tiling = Tiling.of(x.shape, kernel.shape[0])
    out = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return _call(functools.partial(convolve_program, tiling), math.prod(tiling.counts), out, x, kernel)


def _kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    tiling = Tiling.of(x.shape, size)
    images, down, across, channels = tiling.counts
    strips = min(_STRIPS, max(1, images * down * across * channels // _PROGRAMS))
    parts = pl.cdiv(images * down, strips)
    out = jax.ShapeDtypeStruct((parts * across, size, size, x.shape[3]), jnp.float32)
    program = functools.partial(kernel_gradient_program, tiling, strips)
    return _call(program, parts * across * channels, out, x, grad).sum(0)


# XLA cannot look into a program: left alone it would gather a batch that lies on several devices. Each device works on
# its own samples and channels.


def _shardings(mesh: Mesh, x: jax.ShapeDtypeStruct) -> tuple[Any, NamedSharding, NamedSharding]:
    """The axes of a batch, and the shardings of its maps and of their kernel."""
    batch, _, _, channels = x.sharding.spec
    maps, kernel = PartitionSpec(batch, None, None, channels), PartitionSpec(None, None, channels)
    return batch, NamedSharding(mesh, maps), NamedSharding(mesh, kernel)


@custom_partitioning
def _sharded_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(x, kernel)


def _partition_convolve(mesh: Mesh, inputs: tuple[Any, Any], _: Any) -> tuple[Any, ...]:
    _, maps, kernel = _shardings(mesh, inputs[0])
    return mesh, _convolve, maps, (maps, kernel)


_sharded_convolve.def_partition(
    _partition_convolve,
    sharding_rule="b h w c, i j c -> b h w c",
    need_replication_factors=("h", "w", "i", "j"),
)


@functools.partial(custom_partitioning, static_argnums=(2,))
def _sharded_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    return _kernel_gradient(x, grad, size)


def _partition_kernel_gradient(size: int, mesh: Mesh, inputs: tuple[Any, Any], _: Any) -> tuple[Any, ...]:
    batch, maps, kernel = _shardings(mesh, inputs[0])

    def sum_over_devices(x: jax.Array, grad: jax.Array) -> jax.Array:
        own = _kernel_gradient(x, grad, size)
        return own if batch is None else jax.lax.psum(own, batch)

    return mesh, sum_over_devices, kernel, (maps, maps)


_sharded_kernel_gradient.def_partition(
    _partition_kernel_gradient,
    sharding_rule="b h w c, b h w c -> i j c",
    reduction_factors=("b",),
    need_replication_factors=("h", "w", "i", "j"),
)


# Maps that share a kernel are a larger batch, and maps with kernels of their own are more channels.


@jax.custom_batching.custom_vmap
def pallas_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Depthwise convolution, zeros around the map, summed in float32.

    Args:
      x: [B,H,W,C], float32 or bfloat16.
      kernel: [k,k,C] float32, k odd.

    Returns:
      [B,H,W,C] in the dtype of x.
    """
    return _sharded_convolve(x, kernel)


@pallas_conv.def_vmap
def _(size: int, batched: list[bool], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, bool]:
    if not batched[1]:
        y = pallas_conv(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(x.shape), True
    if not batched[0]:
        x = jnp.broadcast_to(x, (size, *x.shape))
    return _split_channels(pallas_conv(_join_channels(x), _join_channels(kernel)), size), True


def pallas_kernel_gradient(x: jax.Array, grad: jax.Array, size: int) -> jax.Array:
    """Gradient of `pallas_conv` by its kernel, ``sum over b,h,w of x[b,h+i-p,w+j-p,c] grad[b,h,w,c]``.

    Args:
      x: [B,H,W,C], float32 or bfloat16.
      grad: [B,H,W,C], gradient by the output.
      size: k, odd.

    Returns:
      [k,k,C] float32
    """

    @jax.custom_batching.custom_vmap
    def call(x: jax.Array, grad: jax.Array) -> jax.Array:
        return _sharded_kernel_gradient(x, grad, size)

    @call.def_vmap
    def _(count: int, batched: list[bool], *maps: jax.Array) -> tuple[jax.Array, bool]:
        joined = [
            _join_channels(array if there else jnp.broadcast_to(array, (count, *array.shape)))
            for array, there in zip(maps, batched, strict=True)
        ]
        return _split_channels(call(*joined), count), True

    return call(x, grad)


def _join_channels(array: jax.Array) -> jax.Array:
    """[N,...,C] -> [...,N C]."""
    array = jnp.moveaxis(array, 0, -2)
    return array.reshape(*array.shape[:-2], -1)


def _split_channels(array: jax.Array, count: int) -> jax.Array:
    """[...,N C] -> [N,...,C]."""
    return jnp.moveaxis(array.reshape(*array.shape[:-1], count, -1), -2, 0)
