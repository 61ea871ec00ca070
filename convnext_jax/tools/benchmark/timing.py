"""Timing of calls, and the machine's ceiling: the fastest matrix product that it was seen to do."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from convnext_jax.sharding import batch_sharded, replicated


def time_calls(
    calls: Mapping[str, Callable[[], None]],
    repeats: int,
    progress: Callable[[int, float], None] = lambda round, seconds: None,
) -> dict[str, list[float]]:
    """Seconds of each of some calls, which take turns, so that a machine that changes its pace does so for all.

    Args:
      calls: by name; each returns when its work is done.
      repeats: how often each is timed, after a first time that is not counted.
      progress: told of each round's number, 0 that of the first, and its seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 1):
        round_started = time.perf_counter()
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            elapsed = time.perf_counter() - started
            if number:
                seconds[name].append(elapsed)
        progress(number, time.perf_counter() - round_started)
    return seconds


def matmul_sizes(backend: str) -> tuple[int, ...]:
    """Sides of the matrices with which a backend's ceiling is looked for: an accelerator wants large ones."""
    return (512, 1024, 2048) if backend == "cpu" else (2048, 4096, 8192, 16384)


def matmul_ceiling(
    dtype: str, mesh: Mesh, sizes: Sequence[int], *, seconds: float = 0.5, repeats: int = 5
) -> dict[int, float]:
    """Floating-point operations a second of the products of square matrices, over all devices together.

    Each device multiplies matrices of its own, at JAX's default precision as the model does, the result again and
    again in one call. Two operations count for a multiply-add.

    Args:
      dtype: of the matrices.
      mesh: the devices.
      sizes: sides of the matrices.
      seconds: that a call should take, about.
      repeats: calls of each size, of which the fastest counts.
    """
    rates = {}
    for size in sizes:
        # Of this deviation the kernel keeps the size of the numbers, however often it is applied.
        kernel = (jax.random.normal(jax.random.key(0), (size, size)) / size**0.5).astype(dtype)
        x = jax.random.normal(jax.random.key(1), (mesh.size * size, size)).astype(dtype)
        x, kernel = jax.device_put(x, batch_sharded(mesh)), jax.device_put(kernel, replicated(mesh))
        once = _fastest(x, kernel, products=1, repeats=2)
        products = max(1, round(seconds / once))
        flops = 2 * mesh.size * size**3 * products
        rates[size] = flops / _fastest(x, kernel, products=products, repeats=repeats)
    return rates


@jax.jit
def _multiply(x: jax.Array, kernel: jax.Array, products: jax.Array) -> jax.Array:
    """[D n,n] by [n,n], so many times one after the other."""
    return jax.lax.fori_loop(0, products, lambda _, x: x @ kernel, x)


def _fastest(x: jax.Array, kernel: jax.Array, *, products: int, repeats: int) -> float:
    count = jnp.int32(products)
    return min(time_calls({"": lambda: jax.block_until_ready(_multiply(x, kernel, count))}, repeats)[""])


def say(text: str) -> None:
    """Tells on stderr what takes its time."""
    print(text, file=sys.stderr, flush=True)
