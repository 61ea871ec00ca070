"""Positions of tokens against their formulas."""

import math

import jax.numpy as jnp
import numpy as np

from convnext_jax.layers.positions import resize_positions, sinusoidal_positions


def test_sinusoidal_positions() -> None:
    table = sinusoidal_positions(7, 6)
    assert table.shape == (7, 6) and table.dtype == np.float32
    for place in range(7):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            np.testing.assert_allclose(table[place, 2 * pair : 2 * pair + 2], [math.sin(angle), math.cos(angle)], 1e-5)


def test_a_plane_stays_one_and_other_tokens_stay_as_they_are() -> None:
    rows, columns = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    table = np.concatenate([[[9.0, -9.0]], np.stack([rows, columns], -1).reshape(64, 2)])
    found = np.asarray(resize_positions(jnp.asarray(table, jnp.float32), (16, 8), others=1))
    np.testing.assert_array_equal(found[0], table[0])
    grid = found[1:].reshape(16, 8, 2)
    inside = slice(4, 12)  # away from the edges, beyond which nothing is known
    np.testing.assert_allclose(grid[inside, 2, 0], (np.arange(16)[inside] + 0.5) / 2 - 0.5, atol=1e-5)
    np.testing.assert_allclose(grid[5, :, 1], np.arange(8), atol=1e-5)
