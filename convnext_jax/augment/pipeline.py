"""The augmentation of a training batch, with its masks if it has any: which operations act, and in which order."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.color import color_jitter
from convnext_jax.augment.erasing import random_erasing
from convnext_jax.augment.geometry import (
    affine,
    affine_nearest,
    alternating_flip,
    random_crop,
    random_flip,
    random_resized_crop,
    random_rotation_maps,
)
from convnext_jax.augment.mixing import mix
from convnext_jax.augment.randaugment import randaugment, trivial_augment
from convnext_jax.batches.preprocess import Normalization, normalize
from convnext_jax.batches.source import Batch, MaskedLabels
from convnext_jax.config import AugmentConfig
from convnext_jax.data.dataset import IGNORED
from convnext_jax.errors import UserError
from convnext_jax.keys import Stream, stream_key
from convnext_jax.tasks.interface import Task


def augment(
    config: AugmentConfig,
    task: Task,
    normalization: Normalization,
    seed: int | jax.Array,
    step: int | jax.Array,
    batch: Batch,
) -> tuple[jax.Array, Any]:
    """Augments and normalizes a batch. Each image is augmented on its own; everything is a function of (seed, step).

    What moves the pixels of an image moves those of its mask the same way. Pixels of a mask that come from outside are
    ignored, unless they are reflected.

    >>> batch = Batch(jnp.zeros((2, 8, 8, 3), jnp.uint8), jnp.array([4, 7]), jnp.arange(2), jnp.int32(0))
    >>> normalization = Normalization(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> from convnext_jax.tasks.classification import Classification
    >>> inputs, targets = augment(AugmentConfig(), Classification(10), normalization, seed=0, step=0, batch=batch)
    >>> inputs.shape, inputs.dtype, targets.labels_a.tolist()
    ((2, 8, 8, 3), dtype('float32'), [4, 7])

    Args:
      config: which operations act, and how strongly.
      task: makes the targets if no images are mixed. Only those of a classification are.
      normalization: means and standard deviations of the C channels.
      seed: the run's seed, an integer or a uint32 scalar.
      step: the step, counted from the start of the run.
      batch: B images as they are in the data set, uint8 [B,H,W,C], with their labels and indices.

    Returns:
      The network's input, float32 [B,H,W,C], and its targets.
    """
    # Each operation has a key of its own, so that turning one on or off does not change what the others draw.
    key = stream_key(seed, Stream.AUGMENT, step)
    jitter, policy, erasing, mixing = (jax.random.fold_in(key, number) for number in range(3, 7))
    fill = jnp.asarray(np.rint(255 * np.asarray(normalization.mean)), jnp.uint8)
    images, labels = _moved(config, key, seed, batch, batch.images, fill, affine), batch.labels
    if isinstance(labels, MaskedLabels):
        outside = jnp.uint8(IGNORED)
        masks = _moved(config, key, seed, batch, labels.masks[..., None], outside, affine_nearest)
        labels = dataclasses.replace(labels, masks=masks[..., 0])
    if config.color_jitter > 0:
        images = color_jitter(jitter, images, config.color_jitter)
    if config.policy == "randaugment":
        images = randaugment(
            policy,
            images,
            fill,
            layers=config.randaugment_layers,
            magnitude=config.randaugment_magnitude,
            magnitude_std=config.randaugment_std,
            probability=config.randaugment_probability,
        )
    elif config.policy == "trivialaugment":
        images = trivial_augment(policy, images, fill)
    inputs = normalize(images, normalization)
    if config.erasing_probability > 0:
        inputs = random_erasing(erasing, inputs, config.erasing_probability, config.erasing_mode)
    if config.mixes:
        return mix(
            mixing,
            inputs,
            batch.labels,
            mixup_alpha=config.mixup_alpha,
            cutmix_alpha=config.cutmix_alpha,
            probability=config.mix_probability,
            switch_probability=config.mix_switch_probability,
        )
    return inputs, task.targets(labels)


def _moved(
    config: AugmentConfig,
    key: jax.Array,
    seed: int | jax.Array,
    batch: Batch,
    pixels: jax.Array,
    fill: jax.Array,
    resample: Callable[..., jax.Array],
) -> jax.Array:
    """Moves the pixels of images, or of their masks, which move alike with the same key.

    Args:
      config: which operations act.
      key: of the augmentation of the step.
      seed: of the run.
      batch: whose pixels they are.
      pixels: uint8 [B,H,W,C].
      fill: value of what comes from outside.
      resample: `affine`, or `affine_nearest` for masks.

    Returns:
      uint8 [B,H,W,C].
    """
    crop, flip, resized = (jax.random.fold_in(key, number) for number in range(3))
    pixels = random_crop(crop, pixels, config.crop_padding, fill if config.crop_mode == "constant" else None)
    if config.resized_crop_area < 1:
        pixels = random_resized_crop(resized, pixels, config.resized_crop_area, resample=resample)
    if config.rotation > 0 or config.zoom > 1:
        maps = random_rotation_maps(jax.random.fold_in(key, 7), pixels.shape, config.rotation, config.zoom)
        pixels = resample(pixels, maps, fill)
    if config.flip == "random":
        pixels = random_flip(flip, pixels)
    elif config.flip == "alternating":
        pixels = alternating_flip(seed, batch.epoch, batch.indices, pixels)
    return pixels


def check_augment(config: AugmentConfig, height: int, width: int) -> None:
    """Raises an error if an operation cannot act on images of the given size.

    >>> check_augment(AugmentConfig(crop_padding=8), 8, 8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    convnext_jax.errors.UserError: config.augment.crop_padding=8: reflection needs less than ...; at most 7

    Args:
      config: the configured operations.
      height: height of the images in pixels.
      width: width of the images in pixels.

    Raises:
      UserError: the padding of the random crop is too large to be filled by reflection.
    """
    if config.crop_mode == "reflect" and config.crop_padding >= min(height, width):
        raise UserError(
            f"config.augment.crop_padding={config.crop_padding}: reflection needs less than the image's own"
            f" {height}x{width} pixels; at most {min(height, width) - 1}"
        )
