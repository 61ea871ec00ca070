"""CIFAR-100 in half an hour on a laptop: a shallow ConvNeXt of five blocks, overlapping 3x3 stem of stride 2.

python train.py --config configs/cifar100_cpu.py

56.7% top-1, 84.3% top-5 on the 10,000 test images after 16 epochs, 30 minutes on two cores of an AMD EPYC (Zen 3), one
seed; see benchmarks/results/cifar100_cpu_epyc_2cores.json, and benchmarks/recipes.md for how it was chosen.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.data.name = "cifar100"
    # Few blocks, wide for their number: a run this short ends before depth pays. The maps are 16, 8, 4 and 2 pixels
    # wide; four-pixel patches are three times as fast and end lower.
    config.model.name = "convnext_atto"
    config.model.depths = (1, 1, 2, 1)
    config.model.dims = (48, 96, 192, 384)
    config.model.stem = "conv3x3_s2"
    # There are no steps to spare for a layer scale to grow from 1e-6, nor for kernels from 0.02.
    config.model.layer_scale = 1.0
    config.model.initialization = "fan_in"
    config.model.drop_path = 0.05
    config.augment.flip = "alternating"
    config.optim.learning_rate = 2e-3
    config.optim.min_learning_rate = 1e-6
    config.optim.warmup_epochs = 0.5
    config.optim.b2 = 0.99
    config.optim.weight_decay = 0.3
    config.optim.label_smoothing = 0.1
    # Smaller images first: 16 epochs in the time of 11 and a half.
    config.run.image_sizes = (20, 24, 28, 32, 32)
    config.run.epochs = 16
    config.run.batch_size = 64
    config.run.eval_every_epochs = 8
    return config
