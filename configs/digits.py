"""Handwritten digits that ship with scikit-learn: nothing to download, minutes on a CPU.

    python train.py --config configs/digits.py

1,438 training and 359 test images, 8x8 pixels scaled to 32x32. 99.2% top-1 in 47 seconds of training on two cores of an
AMD EPYC (Zen 3), one seed; see benchmarks/results/digits_epyc_2cores.json.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "digits"
    config.model.name = "convnext_atto"
    config.model.stem = "patch4"
    config.model.drop_path = 0.05
    config.model.initialization = "fan_in"
    # A mirrored 2 is no digit.
    config.augment.flip = "none"
    config.augment.crop_padding = 3
    config.optim.learning_rate = 2e-3
    config.optim.warmup_epochs = 2.0
    config.run.epochs = 30
    config.run.batch_size = 64
    config.run.eval_every_epochs = 5
    return config
