"""The model of an experiment."""

from flax import nnx

from convnext_jax.config import ModelConfig
from convnext_jax.models.architectures import configured_architecture
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
        configured_architecture(config),
        num_classes=num_classes,
        drop_path=config.drop_path,
        dropout=config.dropout,
        remat=config.remat,
        dtype=dtype,
        initialization=config.initialization,
        seed=seed,
    )
