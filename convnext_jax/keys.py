"""Everything random, as a function of the seed and an index (a step, an epoch): nothing is stored, nothing advances."""

import enum

import jax


class Stream(enum.IntEnum):
    """The independent uses of randomness. The numbers are part of every run's identity: add, never renumber."""

    ORDER = 0  # index: epoch
    AUGMENT = 1  # index: step
    MODEL = 2  # index: step
    FLIP = 3  # index: always 0; an example draws once


def stream_key(seed: int | jax.Array, stream: Stream, index: int | jax.Array) -> jax.Array:
    """The key of one use of randomness.

    Args:
      seed: 0 to 2^32 - 1, an integer or a uint32 scalar.
      stream: what the key is for.
      index: non-negative; the step or the epoch that the key is for.

    Returns:
      A typed PRNG key, the same for the same arguments on every device and in every process.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), int(stream)), index)
