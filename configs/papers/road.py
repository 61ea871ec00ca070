"""CIFAR-100 with the steps of the road from ResNet to ConvNeXt: Liu et al. 2022 (arXiv 2201.03545), figure 2.

    python train.py --config configs/papers/road.py:STEP
    python -m convnext_jax.tools.road runs/road_* --small_images    # the table and the picture of what was trained

STEP is, in order, resnet, stage_ratio, patchify, depthwise, width, inverted, moved_up, kernel5, kernel7, kernel9,
kernel11, gelu, one_activation, one_norm, layer_norm or separate_downsampling, on the way from ResNet-50 to ConvNeXt-T.
base/STEP is the same on the way from ResNet-200 to ConvNeXt-B, quarter/STEP on the first way with a quarter of the
channels. Without an argument it is the last step.

The stems are those for small images: a 3x3 convolution with stride 2, and patches of 2x2 pixels. The recipe is the same
for each step, that of configs/cifar100.py with less drop path. The paper's figures are of ImageNet
(`python -m convnext_jax.tools.road`); for CIFAR-100 there are none. Ours: not measured.
"""

import dataclasses

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError
from convnext_jax.models.road_steps import ROADS, road


def get_config(argument: str = "separate_downsampling") -> config_dict.ConfigDict:
    """The configuration of ``STEP``, ``base/STEP`` or ``quarter/STEP``."""
    size, _, step = argument.rpartition("/")
    size = size or "tiny"
    steps = road(size, small_images=True)
    if step not in steps:
        raise UserError(f"--config ...:{argument} is no step of the road; steps: {', '.join(steps)}")
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = ROADS[size].network
    config.model.update(dataclasses.asdict(steps[step]))
    config.model.drop_path = 0.1
    config.augment.crop_padding = 4
    config.augment.policy = "randaugment"
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 20.0
    config.optim.label_smoothing = 0.1
    config.run.epochs = 200
    config.run.batch_size = 128
    config.run.eval_every_epochs = 5
    return config
