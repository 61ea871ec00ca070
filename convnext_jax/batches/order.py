"""The order of the examples in an epoch, and the calls to the device that an epoch is split into."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.keys import Stream, stream_key


def epoch_order(seed: int | jax.Array, epoch: int | jax.Array, num_examples: int) -> jax.Array:
    """Returns the order of the examples in an epoch: a uniformly random permutation, int32 [N]."""
    return jax.random.permutation(stream_key(seed, Stream.ORDER, epoch), num_examples).astype(jnp.int32)


@functools.lru_cache(maxsize=2)
def host_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the same order as `epoch_order`, in the memory of the host, int32 [N].

    It is drawn on a CPU, since an accelerator that is busy with a call would draw it after that.
    """
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators alone
        device = None
    with jax.default_device(device):
        return np.asarray(epoch_order(jnp.uint32(seed), jnp.int32(epoch), num_examples))


class EpochOrders:
    """The order of the current epoch, drawn once for all calls to the device that are in it.

    A draw sorts twice. On a CPU 50,000 examples take 34 ms (benchmarks/notes.md), as long as a step of a small network.

    Args:
      seed: of the run.
      num_examples: N.
      sharding: how the order lies on the devices.
    """

    def __init__(self, seed: int, num_examples: int, sharding: jax.sharding.Sharding) -> None:
        self._seed = np.uint32(seed)
        self._draw = jax.jit(functools.partial(epoch_order, num_examples=num_examples), out_shardings=sharding)
        self._drawn: tuple[int, jax.Array] | None = None

    def order(self, epoch: int) -> jax.Array:
        """Returns the order of an epoch, counted from 0, int32 [N]."""
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, self._draw(self._seed, np.int32(epoch))
        return self._drawn[1]


def call_length(step: int, steps_per_epoch: int, most: int) -> int:
    """Returns the number of steps of the call to the device that begins at a step.

    Calls end with the epoch, and are as equal as they can be within it, whatever the number of steps: no divisor is
    needed.

    >>> [call_length(step, 97, 20) for step in (0, 20, 40, 59, 78)]
    [20, 20, 19, 19, 19]

    Args:
      step: the first of the call, counted from the start of the run. After an interruption it may be any.
      steps_per_epoch: steps of an epoch.
      most: the most steps of a call.
    """
    done = step % steps_per_epoch
    calls = math.ceil((steps_per_epoch - done) / most)
    return math.ceil((steps_per_epoch - done) / calls)
