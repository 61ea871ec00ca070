"""A network and a data set so small that a test may compile its training step."""

from typing import Any

import numpy as np
from networks import TINY

from convnext_jax.config import AugmentConfig, Experiment, ModelConfig, OptimConfig, RunConfig
from convnext_jax.data.dataset import Dataset, Split
from convnext_jax.models.interface import Architecture, Model
from convnext_jax.models.registry import create_model

NUM_CLASSES = 4


def tiny_model(*, architecture: Architecture = TINY, drop_path: float = 0.2, **options: Any) -> Model:
    """The network of `TINY`, with the options of `create_model`."""
    return create_model(architecture, num_classes=NUM_CLASSES, drop_path=drop_path, **options)


def tiny_dataset(train: int = 40, test: int = 13, size: int = 16, channels: int = 3) -> Dataset:
    """Noise around a brightness for each class, which a network learns in a few steps."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = (np.arange(count) % NUM_CLASSES).astype(np.int32)
        noise = rng.integers(-30, 30, (count, size, size, channels))
        return Split((labels[:, None, None, None] * 60 + 35 + noise).astype(np.uint8), labels)

    names = tuple(f"class {label}" for label in range(NUM_CLASSES))
    mean, std = np.full(channels, 0.5, np.float32), np.full(channels, 0.25, np.float32)
    return Dataset("tiny", split(train), split(test), names, mean, std)


def tiny_experiment(architecture: Architecture = TINY, **run: Any) -> Experiment:
    """The settings that go with them."""
    return Experiment(
        model=ModelConfig(name="convnext_atto", architecture=architecture, drop_path=0.2),
        augment=AugmentConfig(crop_padding=2, flip="random"),
        optim=OptimConfig(learning_rate=3e-3, warmup_epochs=1.0, ema_decay=0.5),
        run=RunConfig(**({"epochs": 4, "batch_size": 8, "steps_per_dispatch": 5} | run)),
    )
