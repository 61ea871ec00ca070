"""What each ingredient gives ConvNeXt on CIFAR-100 in a few epochs on two cores; one change a row from `plain`.

    python -m convnext_jax.tools.sweep sweeps/cifar100_ablation.py --workdir runs/ablation

The network is that of configs/cifar100_cpu.py on images of 16 pixels, trained on nine tenths of the training images and
judged on the tenth that is held out. Figures: not measured.
"""

BASE = "configs/cifar100_cpu.py"

PLAIN = {
    "data.validation_fraction": 0.1,
    "model.stem": "conv3x3_s2",
    "model.drop_path": 0.0,
    "augment.flip": "random",
    "optim.label_smoothing": 0.0,
    "run.image_sizes": (16,),
    "run.epochs": 8,
    "run.eval_every_epochs": 8,
}
POINTS = [
    PLAIN,
    PLAIN | {"model.stem": "patch2"},
    PLAIN | {"augment.flip": "alternating"},
    PLAIN | {"augment.policy": "randaugment"},
    PLAIN | {"augment.mixup_alpha": 0.8, "augment.cutmix_alpha": 1.0},
    PLAIN | {"augment.erasing_probability": 0.25},
    PLAIN | {"optim.ema_decay": 0.999},
    PLAIN | {"optim.label_smoothing": 0.1},
    PLAIN | {"model.drop_path": 0.1},
]
