"""Tiny ImageNet from scratch at its own 64 pixels with ConvNeXt-T.

    python train.py --config configs/tiny_imagenet.py

100,000 training and 10,000 validation images of 200 classes, 200 epochs, crop, flip, RandAugment, mixup and
CutMix. Accuracy, time and hardware: not measured.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "tiny_imagenet"
    config.model.name = "convnext_tiny"
    # Stage maps of 32, 16, 8 and 4 pixels, as CIFAR has with stride 1.
    config.model.stem = "conv3x3_s2"
    config.model.drop_path = 0.3
    config.augment.crop_padding = 8
    config.augment.policy = "randaugment"
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 20.0
    config.optim.label_smoothing = 0.1
    config.optim.ema_decay = 0.9998
    config.run.epochs = 200
    config.run.batch_size = 256
    config.run.eval_every_epochs = 5
    return config
