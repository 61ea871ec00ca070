"""Keys as functions of seed, stream and index."""

import itertools

import jax
import numpy as np

from convnext_jax.keys import Stream, stream_key


def test_keys_differ_by_seed_stream_and_index():
    keys = {
        tuple(jax.random.key_data(stream_key(seed, stream, index)).tolist())
        for seed, stream, index in itertools.product((0, 1, 2**32 - 1), Stream, (0, 1, 1000))
    }
    assert len(keys) == 3 * len(Stream) * 3


def test_a_traced_seed_gives_the_same_key():
    traced = jax.jit(lambda seed, index: jax.random.key_data(stream_key(seed, Stream.ORDER, index)))
    expected = jax.random.key_data(stream_key(4_000_000_000, Stream.ORDER, 7))
    np.testing.assert_array_equal(traced(np.uint32(4_000_000_000), np.int32(7)), expected)


def test_the_numbers_of_the_streams_are_part_of_every_run():
    assert [(stream.name, int(stream)) for stream in Stream] == [
        ("ORDER", 0),
        ("AUGMENT", 1),
        ("MODEL", 2),
        ("FLIP", 3),
        ("CORRUPTION", 4),
    ]
