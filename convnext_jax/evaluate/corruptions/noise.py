"""Corruptions by noise: Gaussian, shot and impulse noise, each drawn for every value of every channel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import poisson

from convnext_jax.evaluate.corruptions.constants import Constants, unit

_DEVIATION = Constants((0.04, 0.06, 0.08, 0.09, 0.10), (0.04, 0.08, 0.12, 0.15, 0.18))
_PHOTONS = Constants((500, 250, 100, 75, 50), (250, 100, 50, 30, 15))  # of a white pixel
_SHARE = Constants((0.01, 0.02, 0.03, 0.05, 0.07), (0.01, 0.02, 0.05, 0.08, 0.14))


def gaussian_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Adds normal noise.

    Args:
      key: a PRNG key.
      image: uint8 [H,W,C].
      severity: 0 to 4, int32 scalar.

    Returns:
      float32 [H,W,C] on the scale [0, 255], to be clipped.
    """
    noise = jax.random.normal(key, image.shape)
    return 255.0 * (unit(image) + _DEVIATION.at(image, severity) * noise)


def shot_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Draws each value from the Poisson distribution with its mean, in photons; see `gaussian_noise`.

    A value has only 256 levels, so one table holds all distributions, and a draw is a binary search in it. That is many
    times as fast on a CPU as `jax.random.poisson`, and exact down to probabilities of 2^-23.
    """
    photons = tuple(_PHOTONS.rows(image).tolist())
    table = jnp.asarray(_poisson_table(photons))[severity]  # [256,counts]
    drawn = jax.random.uniform(key, image.shape)
    level, count = image.astype(jnp.int32), jnp.zeros(image.shape, jnp.int32)
    step = table.shape[1] // 2
    while step:
        count += jnp.where(table[level, count + step - 1] <= drawn, step, 0)
        step //= 2
    return 255.0 * count / _PHOTONS.at(image, severity)


@functools.cache
def _poisson_table(photons: tuple[int, ...]) -> np.ndarray:
    """Returns P(count <= k) at each severity, level and k, float32 [5,256,a power of two]."""
    # Ten deviations above the mean is beyond what 23 bits can draw.
    counts = 1 << int(np.ceil(np.log2(max(photons) + 10 * np.sqrt(max(photons)))))
    means = np.arange(256) / 255.0 * np.asarray(photons)[:, None]
    return poisson.cdf(np.arange(counts), means[..., None]).astype(np.float32)


def impulse_noise(key: jax.Array, image: jax.Array, severity: jax.Array) -> jax.Array:
    """Sets a share of the values to 0 or 255, either with probability 1/2; see `gaussian_noise`."""
    share, drawn = _SHARE.at(image, severity), jax.random.uniform(key, image.shape)
    return jnp.where(drawn < share, jnp.where(drawn < share / 2, 255.0, 0.0), image.astype(jnp.float32))
