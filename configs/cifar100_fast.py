"""CIFAR-100 in half an hour on a laptop, by the literature of fast training: Airbench's network and Muon.

python train.py --config configs/cifar100_fast.py
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = "airbench94"
    config.model.dims = (64, 192, 384)
    config.augment.crop_padding = 2
    config.augment.flip = "alternating"
    config.optim.name = "muon"
    config.optim.learning_rate = 0.01
    config.optim.min_learning_rate = 1e-5
    config.optim.warmup_epochs = 0.5
    config.optim.momentum = 0.8
    config.optim.weight_decay = 0.5
    config.optim.b1 = 0.85
    config.optim.b2 = 0.95
    config.optim.label_smoothing = 0.1
    config.run.image_sizes = (24, 28, 32)
    config.run.epochs = 9
    config.run.batch_size = 500
    config.run.eval_every_epochs = 3
    return config
