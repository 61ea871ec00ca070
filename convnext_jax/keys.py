"""Everything random is a function of the seed and an index (a step, an epoch). Nothing is stored, nothing advances."""

import enum

import jax


class Stream(enum.IntEnum):
    """The independent uses of randomness. The numbers are part of every run's identity: add new ones, renumber none."""

    ORDER = 0  # index: epoch
    AUGMENT = 1  # index: step
    MODEL = 2  # index: step
    FLIP = 3  # index: always 0; each example draws once
    CORRUPTION = 4  # index: the corruption; each example folds in its number


def stream_key(seed: int | jax.Array, stream: Stream, index: int | jax.Array) -> jax.Array:
    """Returns the key for one use of randomness.

    Args:
      seed: 0 to 2^32 - 1, an integer or a uint32 scalar.
      stream: what the key is for.
      index: the step or the epoch that the key is for, 0 or more.

    Returns:
      A typed PRNG key. It is the same for the same arguments on every device and in every process.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), int(stream)), index)
