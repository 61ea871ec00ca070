"""The Haar wavelet transform of a map."""

import jax
import jax.numpy as jnp


def haar_transform(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the two-dimensional Haar transform, one level deep. It keeps the sum of squares.

    Of the pixels ``a b`` over ``c d`` it is the low pass ``(a + b + c + d) / 2`` and three details:
    ``(a + b - c - d) / 2``, ``(a - b + c - d) / 2`` and ``(a - b - c + d) / 2``. These are the cA, cH, cV and cD of
    PyWavelets.

    >>> low, details = haar_transform(jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1))
    >>> low.item(), details.reshape(3).tolist()
    (5.0, [-2.0, -1.0, 0.0])

    Args:
      x: [B,H,W,C], height and width even.

    Returns:
      The low pass [B,H/2,W/2,C] and the details [B,H/2,W/2,C,3].
    """
    a, b, c, d = (x[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return (top + bottom) / 2, jnp.stack([top - bottom, left + right, left - right], -1) / 2
