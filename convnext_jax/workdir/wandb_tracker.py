"""Weights & Biases. Its own variables choose the server, the project and the mode: ``WANDB_MODE=offline``."""

import os
from collections.abc import Mapping

from convnext_jax.storage.cloud import is_cloud
from convnext_jax.workdir.tracker import PROJECT, TrackedRun


class WandbTracker:
    """A run of Weights & Biases; see `convnext_jax.workdir.tracker.Tracker`."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        own_folder = is_cloud(run.workdir) or "WANDB_DIR" in os.environ
        self._run = wandb.init(
            id=run.identifier,
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            config={section: dict(fields) for section, fields in run.settings.items()},
            allow_val_change=True,  # of what may differ between two starts
            dir=None if own_folder else str(run.workdir),
            settings=wandb.Settings(console="off"),
        )
        # Its own steps only grow. A run that goes back comes to the same step twice.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.log({"step": step, **figures})

    def close(self, *, completed: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if completed else 1)
