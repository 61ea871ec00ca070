"""A data set with masks, and runs on it, so small that a test may train them."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tiny import tiny_experiment

from convnext_jax.config import AugmentConfig, Experiment, TaskConfig
from convnext_jax.data.dataset import IGNORED, Dataset, Split
from convnext_jax.run.loop import train
from convnext_jax.run.prepare import prepare
from convnext_jax.sharding import make_mesh
from convnext_jax.train.compiler import StepCompiler

CLASS_NAMES = ("few", "many")
MASK_NAMES = ("ground", "dark", "gray", "bright")


def masks_dataset(train: int = 32, test: int = 13, size: int = 16) -> Dataset:
    """Rectangles on a black ground, of a brightness that is their class; some pixels are ignored."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        masks, labels = np.zeros((count, size, size), np.uint8), (np.arange(count) % 2).astype(np.int32)
        for mask, label in zip(masks, labels, strict=True):
            for _ in range(2 + 3 * label):
                top, left = rng.integers(0, size - 4, 2)
                mask[top : top + rng.integers(3, 9), left : left + rng.integers(3, 9)] = rng.integers(1, 4)
        noise = rng.integers(-40, 40, (*masks.shape, 3))
        images = np.clip(30 + 60 * masks[..., None].astype(np.int64) + noise, 0, 255).astype(np.uint8)
        masks[rng.random(masks.shape) < 0.05] = IGNORED
        return Split(images, labels, masks)

    mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    return Dataset("tiny masks", split(train), split(test), CLASS_NAMES, mean, std, mask_names=MASK_NAMES)


def masks_experiment(task: str = "segmentation", **run: Any) -> Experiment:
    """The settings of two epochs; a figure that they are judged by is neither 0 nor 1."""
    plain = tiny_experiment(**({"epochs": 2, "batch_size": 8} | run))
    config = (
        TaskConfig() if task == "classification" else TaskConfig(name=task, head_channels=8, loss="cross_entropy+dice")
    )
    return dataclasses.replace(plain, task=config, augment=AugmentConfig(flip="none", crop_padding=0))


def train_masks(workdir: Path, dataset: Dataset, task: str = "segmentation", **run: Any) -> Path:
    """Trains a run on one device."""
    with StepCompiler() as compiler:
        mesh = make_mesh(jax.devices()[:1])
        with prepare(masks_experiment(task, **run), workdir, mesh, compiler=compiler, dataset=dataset) as ready:
            train(ready)
    return workdir
