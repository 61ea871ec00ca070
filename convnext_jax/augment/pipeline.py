"""The augmentation of a training batch: which families act, and in which order."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.augment.color import color_jitter
from convnext_jax.augment.erasing import random_erasing
from convnext_jax.augment.geometry import alternating_flip, random_crop, random_flip, random_resized_crop
from convnext_jax.augment.mixing import Targets, mix
from convnext_jax.augment.randaugment import randaugment, trivial_augment
from convnext_jax.config import AugmentConfig
from convnext_jax.batches.resident import Batch, normalize
from convnext_jax.errors import UserError
from convnext_jax.keys import Stream, stream_key


def augment(
    config: AugmentConfig,
    seed: int | jax.Array,
    step: int | jax.Array,
    batch: Batch,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[jax.Array, Targets]:
    """Augments and normalises a batch, each sample on its own, all of it a function of (seed, step).

    Args:
      config: what acts, and how strongly.
      seed: the run's, an integer or a uint32 scalar.
      step: counted from the start of the run.
      batch: B images as they lie in the data set, and which they are.
      mean: channel means of the training split, on the scale [0, 1].
      std: channel deviations of the training split.

    Returns:
      The network's input, float32 [B, H, W, 3], and what it shows.
    """
    # A key for each family by its own number, so that adding or leaving out one does not change what the others draw.
    key = stream_key(seed, Stream.AUGMENT, step)
    crop, flip, resized, jitter, policy, erasing, mixing = (jax.random.fold_in(key, number) for number in range(7))
    fill = jnp.asarray(np.rint(255 * np.asarray(mean)), jnp.uint8)
    images = random_crop(crop, batch.images, config.crop_padding, fill if config.crop_mode == "constant" else None)
    if config.resized_crop_area < 1:
        images = random_resized_crop(resized, images, config.resized_crop_area)
    if config.flip == "random":
        images = random_flip(flip, images)
    elif config.flip == "alternating":
        images = alternating_flip(seed, batch.epoch, batch.indices, images)
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
    inputs = normalize(images, mean, std)
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
    return inputs, Targets.of(batch.labels)


def check_augment(config: AugmentConfig, height: int, width: int) -> None:
    """Raises UserError where a policy cannot act on images of this size, in pixels."""
    if config.crop_mode == "reflect" and config.crop_padding >= min(height, width):
        raise UserError(
            f"config.augment.crop_padding={config.crop_padding}: reflection needs less than the image's own"
            f" {height}x{width} pixels; at most {min(height, width) - 1}"
        )
