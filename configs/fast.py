"""CIFAR in half an hour on two cores of a CPU, with what the literature of fast training found: Airbench and Muon.

python train.py --config configs/fast.py:cifar100
python train.py --config configs/fast.py:cifar100_hour
python train.py --config configs/fast.py:cifar100_wide
python train.py --config configs/fast.py:cifar10
python train.py --config configs/fast.py:cifar10_wide

On the test images of CIFAR-100, on two cores of an AMD EPYC with AVX-512: 70.6% top-1, the mean of three seeds, after 8
epochs, 29 minutes. With one seed and beside other work 71.7% after the 14 epochs of cifar100_hour, 64 minutes, and
73.2% after as many with the wider blocks of cifar100_wide, 102 minutes. CIFAR-10 with 4 epochs 90.8%, in 15 minutes;
with its own 8 not measured. See benchmarks/results/fast_cifar*.json, and benchmarks/recipes.md for how they were
chosen.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError, nearest

RUNS = ("cifar100", "cifar100_hour", "cifar100_wide", "cifar10", "cifar10_wide")


def get_config(argument: str = "cifar100") -> config_dict.ConfigDict:
    """The configuration of one of `RUNS`."""
    if argument not in RUNS:
        raise UserError(f"--config ...:{argument} is not one of these runs; {nearest(argument, RUNS)}")
    data, _, variant = argument.partition("_")
    longer = variant in ("hour", "wide")
    config = default_config()
    config.data.name = data
    # About as many operations as airbench94's 64, 256 and 256, and more channels for a hundred classes.
    config.model.name = "airbench94"
    config.model.dims = (96, 256, 512) if variant == "wide" else (64, 192, 384)
    config.augment.crop_padding = 4 if longer else 2
    config.augment.flip = "alternating"
    config.augment.erasing_probability = 0.25 if longer else 0.0
    # The norms cancel the scale of a kernel, so a step matters relative to that scale, and the decay holds the scale.
    # The learning rate is ten times that of a ConvNeXt.
    config.optim.name = "muon"
    config.optim.learning_rate = 0.02
    config.optim.min_learning_rate = 1e-5
    config.optim.warmup_epochs = 0.5
    config.optim.momentum = 0.8
    config.optim.weight_decay = 0.5
    config.optim.b1 = 0.85
    config.optim.b2 = 0.95
    config.optim.label_smoothing = 0.1
    # Smaller images first: a step on 24 pixels takes about half as long as one on 32.
    config.run.image_sizes = (24, 28, 32)
    config.run.epochs = 14 if longer else 8
    config.run.batch_size = 500
    config.run.eval_every_epochs = 7 if longer else 4
    return config
