"""The model of an experiment, and the check of its names that needs no JAX."""

from typing import TYPE_CHECKING

from convnext_jax.config import ModelConfig
from convnext_jax.errors import UserError, nearest
from convnext_jax.models.sizes import SIZES, STEMS

if TYPE_CHECKING:
    from flax import nnx


def check_model(config: ModelConfig) -> None:
    """Raises UserError where no such model or stem exists."""
    for field, name, table in (("name", config.name, SIZES), ("stem", config.stem, STEMS)):
        if name not in table:
            raise UserError(f"config.model.{field}={name!r}: unknown; {nearest(name, table)}")


def model_from_config(config: ModelConfig, *, num_classes: int, dtype: str, seed: int = 0) -> "nnx.Module":
    """Creates the model of an experiment with random parameters.

    Args:
      config: which model.
      num_classes: classes of the data set.
      dtype: what it computes in, ``float32`` or ``bfloat16``.
      seed: of the initial parameters.
    """
    from convnext_jax.models.create import create_model

    return create_model(
        config.name,
        num_classes=num_classes,
        stem=config.stem,
        drop_path=config.drop_path,
        layer_scale=config.layer_scale,
        dtype=dtype,
        seed=seed,
    )
