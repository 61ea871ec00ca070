"""Feature maps of another size."""

import jax


def resize_map(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes a map bilinearly, as PyTorch's ``interpolate`` does with ``align_corners=False``.

    >>> import jax.numpy as jnp
    >>> resize_map(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1), (1, 4)).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]

    Args:
      x: [B,H,W,C].
      size: the new height and width, in pixels.

    Returns:
      [B,*size,C] in the dtype of x.
    """
    if x.shape[1:3] == size:
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear", antialias=False)
