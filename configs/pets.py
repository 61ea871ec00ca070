"""The pets of Oxford-IIIT: each pixel is pet, background or border, by a ConvNeXt-T from ImageNet weights.

    python -m convnext_jax.tools.import_torch convnext_tiny.pth --model convnext_tiny --output weights/convnext_tiny
    python train.py --config configs/pets.py --config.model.init_from=weights/convnext_tiny

3,680 training and 3,669 test pictures, the center square of each at 224x224 pixels. TFDS downloads them (774 MiB). The
weights are facebookresearch's or timm's; see docs/weights.md. Without `init_from` the network starts from nothing.

`configs/pets.py:multitask` is the multi-task experiment of the course report: one backbone, cross-entropy for the 37
breeds, cross-entropy and Dice for the pixels. Neither figure is measured: no accelerator and no weights were at hand.
"""

from ml_collections import config_dict

from convnext_jax.config import default_config
from convnext_jax.errors import UserError, nearest

TASKS = ("segmentation", "multitask")


def get_config(task: str = "segmentation") -> config_dict.ConfigDict:
    """The configuration of one of the `TASKS`."""
    if task not in TASKS:
        raise UserError(f"configs/pets.py:{task}: there is no such task; {nearest(task, TASKS)}")
    config = default_config()
    config.task.name = task
    config.task.head = "upernet"
    config.task.loss = "cross_entropy+dice"
    config.data.name = "oxford_iiit_pet"
    config.data.image_size = 224
    config.model.name = "convnext_tiny"
    config.model.drop_path = 0.4  # the ConvNeXt paper's for segmentation, as the next three
    config.optim.learning_rate = 1e-4
    config.optim.layer_decay = 0.9
    config.optim.weight_decay = 0.05
    config.augment.crop_padding = 0
    config.augment.resized_crop_area = 0.3
    config.augment.rotation = 10.0
    config.augment.color_jitter = 0.3
    config.optim.label_smoothing = 0.1 if task == "multitask" else 0.0
    config.task.classification_weight = 0.5 if task == "multitask" else 1.0
    config.optim.warmup_epochs = 2.0
    config.optim.clip_norm = 1.0
    config.run.epochs = 40
    config.run.batch_size = 32
    config.run.eval_batch_size = 64
    config.run.eval_every_epochs = 4
    return config
