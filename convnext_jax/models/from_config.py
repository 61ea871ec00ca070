"""The model of an experiment."""

from flax import nnx

from convnext_jax.config import ModelConfig
from convnext_jax.models.create import create_model


def model_from_config(config: ModelConfig, *, num_classes: int, dtype: str, seed: int = 0) -> nnx.Module:
    """Creates the model of an experiment with random parameters.

    Args:
      config: which model.
      num_classes: classes of the data set.
      dtype: what it computes in, ``float32`` or ``bfloat16``.
      seed: of the initial parameters.
    """
    return create_model(
        config.name,
        num_classes=num_classes,
        stem=config.stem,
        drop_path=config.drop_path,
        layer_scale=config.layer_scale,
        dtype=dtype,
        seed=seed,
    )
