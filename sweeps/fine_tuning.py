"""Fine-tuning from weights of CIFAR-100, with and without layer-wise decay, beside training from scratch.

    python train.py --config configs/fast.py:cifar100 --workdir runs/fast_cifar100
    python -m convnext_jax.tools.export --workdir runs/fast_cifar100 --format convnext_jax \\
        --output runs/fast_cifar100_weights
    python -m convnext_jax.tools.sweep sweeps/fine_tuning.py --workdir runs/fine_tuning

The digits of scikit-learn, and a part of Tiny ImageNet in the official layout, which ``--config.data.manual_dir`` names
(docs/data.md): a sample of 4,000 training images was used. Three seeds each. docs/weights.md has the results.
"""

BASE = "configs/fast.py:cifar10"
WEIGHTS = "runs/fast_cifar100_weights"

SHORT = {
    "optim.warmup_epochs": 0.5,
    "run.batch_size": 64,
    "run.image_sizes": (32,),
}
DATA = {
    "digits": {"data.name": "digits", "augment.flip": "none", "run.epochs": 3, "run.eval_every_epochs": 3},
    "tiny_imagenet": {"data.name": "tiny_imagenet", "data.image_size": 32, "run.epochs": 6, "run.eval_every_epochs": 6},
}
STARTS = {
    "scratch": {},
    "weights": {"model.init_from": WEIGHTS},
    "weights, layer decay": {"model.init_from": WEIGHTS, "optim.layer_decay": 0.75},
}
POINTS = [
    SHORT | data | start | {"run.seed": seed}
    for data in DATA.values()
    for start in STARTS.values()
    for seed in (0, 1, 2)
]
