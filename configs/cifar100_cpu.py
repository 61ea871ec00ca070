"""CIFAR-100 in half an hour on a laptop: ConvNeXt atto, images of 24 pixels, overlapping 3x3 stem of stride 2.

python train.py --config configs/cifar100_cpu.py
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "cifar100"
    # Arithmetic goes with the square of the side: 24 pixels cost 9/16 of 32.
    config.data.image_size = 24
    config.model.name = "convnext_atto"
    config.model.stem = "conv3x3_s2"
    # A run this short has no steps to spare for a layer scale to grow from 1e-6.
    config.model.layer_scale = 1.0
    config.augment.crop_padding = 3
    config.optim.learning_rate = 2e-3
    config.optim.min_learning_rate = 1e-5
    config.optim.warmup_epochs = 1.0
    # Fourteen epochs are too few to overfit.
    config.optim.label_smoothing = 0.0
    config.run.epochs = 14
    config.run.batch_size = 128
    config.run.eval_every_epochs = 2
    return config
