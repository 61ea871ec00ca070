"""Fine-tuning from weights of CIFAR-100, with and without layer-wise decay, beside training from scratch.

    python train.py --config configs/fast.py:cifar100 --workdir runs/fast_cifar100
    python -m convnext_jax.tools.export --workdir runs/fast_cifar100 --format convnext_jax \\
        --output runs/fast_cifar100_weights
    python -m convnext_jax.tools.sweep sweeps/fine_tuning.py --workdir runs/fine_tuning_digits \\
        --config.data.name=digits --config.augment.flip=none --config.run.epochs=3
    python -m convnext_jax.tools.sweep sweeps/fine_tuning.py --workdir runs/fine_tuning_tiny_imagenet \\
        --config.data.name=tiny_imagenet --config.data.image_size=32 --config.run.epochs=6

A fifth of the training images is evaluated. Three seeds each. docs/weights.md has the results.
"""

BASE = "configs/fast.py:cifar10"
WEIGHTS = "runs/fast_cifar100_weights"

SHORT = {
    "data.validation_fraction": 0.2,
    "optim.warmup_epochs": 0.5,
    "run.batch_size": 64,
    "run.image_sizes": (32,),
}
STARTS = ({}, {"model.init_from": WEIGHTS}, {"model.init_from": WEIGHTS, "optim.layer_decay": 0.75})
POINTS = [SHORT | start | {"run.seed": seed} for start in STARTS for seed in (0, 1, 2)]
