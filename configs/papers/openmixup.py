"""CIFAR-100 as the benchmark of `Westlake-AI/openmixup` trains ConvNeXt-T: 3x3 stem of stride 1, 32 pixels.

    python train.py --config configs/papers/openmixup.py:deit

The argument is deit (mixup 0.8 and CutMix 1.0) or vanilla (neither). Top-1 in percent, published as the best of the
last ten epochs: vanilla 78.70 after 200 epochs and 80.65 after 600, deit 83.09 and 84.12. Ours is the last epoch's: not
measured. 600 epochs: --config.run.epochs=600.

The benchmark's RandAugment draws from a list of its own, weaker in some operations than timm's, which stands here at
the same magnitude; and it draws one share of mixup or CutMix for a batch, where here each image draws its own.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError


def get_config(argument: str = "deit") -> config_dict.ConfigDict:
    """The configuration of ``deit`` or ``vanilla``."""
    if argument not in ("deit", "vanilla"):
        raise UserError(f"--config ...:{argument} is unknown; it is deit or vanilla")
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = "convnext_tiny"
    config.model.stem = "conv3x3_s1"
    config.model.drop_path = 0.3
    config.augment.crop_padding = 4
    config.augment.policy = "randaugment"
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 7.0
    config.augment.randaugment_std = 0.5
    if argument == "deit":
        config.augment.mixup_alpha = 0.8
        config.augment.cutmix_alpha = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.min_learning_rate = 1e-6
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 20.0
    config.optim.label_smoothing = 0.1
    config.run.epochs = 200
    config.run.batch_size = 100
    config.run.eval_every_epochs = 5
    return config
