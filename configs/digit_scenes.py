"""Scenes of real handwritten digits, each pixel to be given its digit: nothing to download, minutes on a CPU.

    python train.py --config configs/digit_scenes.py

4,000 training and 800 test scenes of 48x48 pixels, made of scikit-learn's digits. 90.2% mean IoU on the test scenes in
297 seconds of training on two cores of an AMD EPYC, one seed; see benchmarks/results/digit_scenes_epyc_2cores.json.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config


def get_config() -> config_dict.ConfigDict:
    """The configuration."""
    config = default_config()
    config.task.name = "segmentation"
    config.task.head = "fpn"
    config.task.head_channels = 16
    config.task.loss = "cross_entropy+dice"
    config.data.name = "digit_scenes"
    config.data.image_size = 48
    config.model.name = "convnext_atto"
    config.model.depths = (1, 1, 2, 1)
    config.model.dims = (16, 32, 64, 128)
    # Strokes are three pixels wide. A first map of half the size blurs them.
    config.model.stem = "conv3x3_s1"
    config.model.layer_scale = 0.0
    config.model.initialization = "fan_in"
    # A mirrored 2 is no digit.
    config.augment.flip = "none"
    config.augment.crop_padding = 6
    config.augment.crop_mode = "constant"
    config.optim.name = "muon"
    config.optim.momentum = 0.95
    config.optim.learning_rate = 5e-3
    config.optim.warmup_epochs = 0.5
    config.optim.label_smoothing = 0.0
    config.run.epochs = 7
    config.run.batch_size = 32
    config.run.eval_every_epochs = 7
    return config
