"""The road from ResNet-50 to ConvNeXt-T on CIFAR-100, for a GPU.

    python -m convnext_jax.tools.sweep sweeps/road.py --workdir runs/road
    python -m convnext_jax.tools.road runs/road/* --small_images

Each step is trained for six epochs on nine tenths of the training images and evaluated on the other tenth, the first
and the last with three seeds. docs/papers.md has the results of 13 steps with one seed.
"""

from convnext_jax.models.road_steps import road

BASE = "configs/papers/road.py:resnet"

SHORT = {
    "data.validation_fraction": 0.1,
    "model.drop_path": 0.0,
    "augment.policy": "none",
    "augment.mixup_alpha": 0.0,
    "augment.cutmix_alpha": 0.0,
    "optim.warmup_epochs": 1.0,
    "run.epochs": 6,
    "run.eval_every_epochs": 1,
}


def _network(step: str) -> dict[str, object]:
    return {f"model.{field}": value for field, value in vars(road("tiny", small_images=True)[step]).items()}


STEPS = list(road("tiny", small_images=True))
POINTS = [SHORT | _network(step) for step in STEPS]
POINTS += [SHORT | _network(step) | {"run.seed": seed} for seed in (1, 2) for step in (STEPS[0], STEPS[-1])]
