"""Timing of calls, what counts as work, and the machine's ceiling: the fastest matrix product that was measured."""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from convnext_jax.config import OptimConfig
from convnext_jax.sharding import Sharding


@dataclasses.dataclass(frozen=True)
class Spread:
    """Five numbers that summarize many.

    Attributes:
      median: half of them are below.
      lower: the first quartile, a quarter of them are below.
      upper: the third quartile.
      least: the smallest.
      most: the largest.
    """

    median: float
    lower: float
    upper: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarizes one value or more.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 10.0])
        Spread(median=3.0, lower=2.0, upper=4.0, least=1.0, most=10.0)
        """
        if len(values) == 1:
            return cls(*(values[0],) * 5)
        lower, median, upper = statistics.quantiles(values, method="inclusive")
        return cls(median, lower, upper, min(values), max(values))


def flops_per_image(part: str, macs: int, optim: OptimConfig) -> int:
    """Returns the floating-point operations that a part needs for one image.

    Twice the multiply-adds forward. A gradient takes twice as many again, by the inputs and by the kernels: six times
    the multiply-adds for a training step, and as many again for the second gradient of sharpness-aware minimization.
    What remat computes again is not counted, nor is anything but the model's convolutions and matrix products.

    >>> flops_per_image("step", 100, OptimConfig())
    600

    Args:
      part: ``forward``, ``step`` or ``pipeline``.
      macs: multiply-adds of the model for one image.
      optim: of the experiment.
    """
    gradients = 2 if optim.sam_rho else 1
    return 2 * macs if part == "forward" else 6 * macs * gradients


def time_calls(
    calls: Mapping[str, Callable[[], None]],
    repeats: int,
    progress: Callable[[int, float], None] = lambda round, seconds: None,
) -> dict[str, list[float]]:
    """Returns the seconds of each of some calls, which take turns, so that a change of the machine's pace hits all.

    Args:
      calls: by name; each returns when its work is done.
      repeats: how often each is timed, after a first time that is not counted.
      progress: called with each round's number, 0 for the first, and its seconds.
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
    """Returns the sides of the matrices that are tried for a platform's ceiling: an accelerator needs large ones."""
    return (512, 1024, 2048) if backend == "cpu" else (2048, 4096, 8192, 16384)


def matmul_ceiling(
    dtype: str, sharding: Sharding, sizes: Sequence[int], *, seconds: float = 0.5, repeats: int = 5
) -> dict[int, float]:
    """Returns the floating-point operations a second of products of square matrices, over all devices together.

    Each device multiplies matrices of its own, at JAX's default precision as the model does, the result again and again
    in one call. A multiply-add counts as two operations.

    Args:
      dtype: of the matrices.
      sharding: the devices.
      sizes: sides of the matrices.
      seconds: that a call should take, about.
      repeats: calls of each size, of which the fastest counts.
    """
    rates, count = {}, sharding.num_devices
    for size in sizes:
        # With this deviation the kernel keeps the size of the numbers, however often it is applied.
        kernel = (jax.random.normal(jax.random.key(0), (size, size)) / size**0.5).astype(dtype)
        x = jax.random.normal(jax.random.key(1), (count * size, size)).astype(dtype)
        x, kernel = jax.device_put(x, sharding.batch), jax.device_put(kernel, sharding.replicated)
        once = _fastest(x, kernel, products=1, repeats=2)
        products = max(1, round(seconds / once))
        rates[size] = 2 * count * size**3 * products / _fastest(x, kernel, products=products, repeats=repeats)
    return rates


@jax.jit
def _multiply(x: jax.Array, kernel: jax.Array, products: jax.Array) -> jax.Array:
    """Multiplies [D n,n] by [n,n], a number of times in sequence."""
    return jax.lax.fori_loop(0, products, lambda _, x: x @ kernel, x)


def _fastest(x: jax.Array, kernel: jax.Array, *, products: int, repeats: int) -> float:
    count = jnp.int32(products)
    return min(time_calls({"": lambda: jax.block_until_ready(_multiply(x, kernel, count))}, repeats)[""])


def say(text: str) -> None:
    """Prints on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)
