"""CIFAR-100 as the course report "ConvNeXt 网络的设计与实验" trains it: 300 epochs, learning rate 4e-3, batches of 64.

    python train.py --config configs/papers/course_report.py:convnext

The argument is convnext, improved (with a Swin-MLP module), vit_b, resnet101 or resnet1001. Top-1 of the report in
percent: convnext 82.35, improved 82.34, vit_b 78.27, resnet101 77.3, in about 20 hours on two RTX 2080 Ti. Ours: not
measured. Which ResNet-1001 is meant is not known; here it is the pre-activation network of He et al. 2016 (arXiv
1603.05027) at CIFAR's own 32 pixels, for which it is made. The others see 224 pixels.

The report states no more of its recipe than the first line. The rest here is that of Liu et al. 2022 for ImageNet,
whose learning rate it is: weight decay 0.05, 20 epochs of warm-up, cosine, smoothing 0.1, RandAugment of magnitude 9,
mixup 0.8, CutMix 1.0, random erasing 0.25, at 224 pixels, to which the images are enlarged on the device, after all
augmentation, so that the noise of an erased rectangle is as coarse as the pixels of CIFAR.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError

MODELS = {
    "convnext": "convnext_tiny",
    "improved": "convnext_swin_mlp",
    "vit_b": "vit_base_patch16",
    "resnet101": "resnet101",
    "resnet1001": "preact_resnet1001",
}


def get_config(argument: str = "convnext") -> config_dict.ConfigDict:
    """The configuration of one of `MODELS`."""
    if argument not in MODELS:
        raise UserError(f"--config ...:{argument} is unknown; it is one of {', '.join(MODELS)}")
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = MODELS[argument]
    config.model.drop_path = 0.1
    config.augment.crop_padding = 4
    config.augment.policy = "randaugment"
    config.augment.randaugment_magnitude = 9.0
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.augment.erasing_probability = 0.25
    config.augment.erasing_mode = "pixel"
    config.optim.learning_rate = 4e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 20.0
    config.optim.label_smoothing = 0.1
    config.run.image_sizes = () if argument == "resnet1001" else (224,)
    config.run.epochs = 300
    config.run.batch_size = 64
    config.run.eval_every_epochs = 5
    return config
