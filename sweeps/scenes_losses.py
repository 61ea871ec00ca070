"""The losses of a segmentation, alone and together, at the same number of steps and three seeds each.

    python -m convnext_jax.tools.sweep sweeps/scenes_losses.py --workdir runs/scenes_losses

A tenth of the training scenes is held out and evaluated. docs/segmentation.md has the results.
"""

BASE = "configs/digit_scenes.py"
POINTS = [
    {
        "task.loss": loss,
        "data.validation_fraction": 0.1,
        "run.epochs": 2,
        "run.eval_every_epochs": 2,
        "run.seeds": 3,
    }
    for loss in ("cross_entropy", "dice", "cross_entropy+dice")
]
