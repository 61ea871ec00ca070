"""What each ingredient of the recipes gives ConvNeXt on CIFAR-100: single changes from `plain`, then all together.

    python -m convnext_jax.tools.sweep sweeps/cifar100_ablation.py --workdir runs/ablation

The network is that of configs/cifar100_cpu.py on images of 16 pixels. It sees 10,000 of the training images 30 times
and is evaluated on the other 40,000. With so few images it memorizes them unless something prevents that, which is what
the long recipes are for. A few epochs of all 50,000 images would not show this. For the results see
benchmarks/recipes.md.
"""

BASE = "configs/cifar100_cpu.py"

PLAIN = {
    "data.validation_fraction": 0.8,
    "model.stem": "conv3x3_s2",
    "model.drop_path": 0.0,
    "augment.flip": "random",
    "optim.label_smoothing": 0.0,
    "run.image_sizes": (16,),
    "run.epochs": 30,
    "run.eval_every_epochs": 6,
}
RANDAUGMENT = {"augment.policy": "randaugment"}
MIXING = {"augment.mixup_alpha": 0.8, "augment.cutmix_alpha": 1.0}
ERASING = {"augment.erasing_probability": 0.25}
AVERAGE = {"optim.ema_decay": 0.999}
SMOOTHING = {"optim.label_smoothing": 0.1}
DROP_PATH = {"model.drop_path": 0.1}
POINTS = [
    PLAIN,
    PLAIN | {"model.stem": "patch2"},
    PLAIN | RANDAUGMENT,
    PLAIN | MIXING,
    PLAIN | ERASING,
    PLAIN | AVERAGE,
    PLAIN | SMOOTHING,
    PLAIN | DROP_PATH,
    PLAIN | {"augment.flip": "alternating"},
    PLAIN | RANDAUGMENT | MIXING | ERASING | AVERAGE | SMOOTHING | DROP_PATH,
]
