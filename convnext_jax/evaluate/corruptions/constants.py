"""The published constants of a corruption: a row for each severity, for images of 32 and of 64 pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
_BETWEEN = 45.25  # the geometric mean of 32 and 64


@dataclasses.dataclass(frozen=True)
class Constants:
    """The constants of the two published generators.

    Attributes:
      at_32: those of CIFAR-10-C, five numbers or five rows of them.
      at_64: those of Tiny-ImageNet-C.
    """

    at_32: tuple
    at_64: tuple

    def rows(self, image: jax.Array) -> np.ndarray:
        """Returns the five rows for an image, [H,W,C]: of the generator whose size is nearer on a logarithmic scale."""
        return np.asarray(self.at_32 if max(image.shape[:2]) < _BETWEEN else self.at_64)

    def at(self, image: jax.Array, severity: jax.Array) -> jax.Array:
        """Returns the row of a severity, float32.

        Args:
          image: [H,W,C].
          severity: 0 to 4, int32 scalar.
        """
        return jnp.asarray(self.rows(image), jnp.float32)[severity]


def unit(image: jax.Array) -> jax.Array:
    """Returns a uint8 image on the scale [0, 1], float32."""
    return image.astype(jnp.float32) / 255.0


# Float32 may leave a value that is whole by a hair below it, where truncation would take a whole level.
_HAIR = 1e-4


def truncated(values: jax.Array) -> jax.Array:
    """Returns values on the scale [0, 255] as whole numbers; the published generators truncate wherever they do so."""
    return jnp.floor(values + _HAIR)
