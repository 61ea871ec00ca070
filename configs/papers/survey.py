"""CIFAR-100 at 32 pixels with any network, all with one recipe: the rows of the papers' comparisons side by side.

    python train.py --config configs/papers/survey.py:NETWORK
    python -m convnext_jax.tools.sweep --help              # many of them, one after another

NETWORK is a name of `convnext_jax.list_models()`. Those made for 224 pixels have a variant for small images:
resnet50_small_stem, alexnet_small_stem, vgg16_bn_small, googlenet_small_stem, swin_tiny_patch2_window4,
efficientnet_b0_small_stem, vit_small_patch4; convnext_tiny and its kin take --config.model.stem=conv3x3_s1. Without an
argument it is resnet50_small_stem.

The recipe is this project's: 200 epochs of AdamW with a cosine, crop and flip, label smoothing 0.1. Accuracies after
200 epochs: not measured. docs/models.md has those of runs of one epoch.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError, nearest
from convnext_jax.models import MODELS


def get_config(argument: str = "resnet50_small_stem") -> config_dict.ConfigDict:
    """The configuration of a network's name."""
    if argument not in MODELS:
        raise UserError(f"--config ...:{argument} is no network; {nearest(argument, MODELS)}")
    config = default_config()
    config.data.name = "cifar100"
    config.model.name = argument
    config.augment.crop_padding = 4
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.warmup_epochs = 5.0
    config.optim.label_smoothing = 0.1
    config.run.epochs = 200
    config.run.batch_size = 128
    config.run.eval_every_epochs = 5
    return config
