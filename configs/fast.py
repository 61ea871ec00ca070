"""CIFAR in minutes on two cores of a CPU, with what the literature of fast training found: Airbench's network, Muon.

python train.py --config configs/fast.py:cifar100           # half an hour
python train.py --config configs/fast.py:cifar10            # half an hour
python train.py --config configs/fast.py:cifar100_wide      # two hours, a wider network

Accuracies: not measured.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError, nearest

RUNS = ("cifar100", "cifar10", "cifar100_wide")


def get_config(argument: str = "cifar100") -> config_dict.ConfigDict:
    """The configuration of one of `RUNS`."""
    if argument not in RUNS:
        raise UserError(f"--config ...:{argument} is no run; {nearest(argument, RUNS)}")
    wide = argument == "cifar100_wide"
    config = default_config()
    config.data.name = argument.removesuffix("_wide")
    config.model.name = "airbench94"
    # As many operations as airbench94's 64, 256 and 256, and more channels for a hundred classes.
    config.model.dims = (96, 256, 512) if wide else (64, 192, 384)
    config.augment.crop_padding = 4 if wide else 2
    config.augment.flip = "alternating"
    config.optim.name = "muon"
    config.optim.learning_rate = 0.02
    config.optim.min_learning_rate = 1e-5
    config.optim.warmup_epochs = 0.5
    config.optim.momentum = 0.8
    config.optim.weight_decay = 0.5
    config.optim.b1 = 0.85
    config.optim.b2 = 0.95
    config.optim.label_smoothing = 0.1
    # Smaller images first: a step on 24 pixels takes about half as long.
    config.run.image_sizes = (24, 28, 32)
    config.run.epochs = 16 if wide else 8
    config.run.batch_size = 500
    config.run.eval_every_epochs = 4
    return config
