"""CIFAR-100 from scratch with ConvNeXt-T and the 3x3 stem of stride 1.

    python train.py --config configs/cifar100.py

200 epochs, crop, flip, RandAugment, mixup and CutMix: not measured. With ``--config.run.epochs=72
--config.optim.warmup_epochs=5 --config.model.drop_path=0.2`` 76.28% in 403 s on one NVIDIA H100, one seed
(benchmarks/results/cifar100_72epochs_h100.json).
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = "convnext_tiny"
    # With the 4x4 patches of the paper CIFAR's 32 pixels leave one pixel to the last stage, and half the accuracy.
    config.model.stem = "conv3x3_s1"
    config.model.drop_path = 0.3
    config.augment.crop_padding = 4
    config.augment.policy = "randaugment"
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 20.0
    config.optim.label_smoothing = 0.1
    config.optim.ema_decay = 0.9998
    config.run.epochs = 200
    config.run.batch_size = 128
    config.run.eval_every_epochs = 5
    return config
