"""Checkpoints: written in the background, whole or not at all, the latest and the best kept.

A checkpoint holds the items ``params``, ``opt_state`` and, where there are any, ``ema`` and BatchNorm's ``statistics``,
so that an evaluation reads the model alone and needs to know nothing of the optimiser.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from convnext_jax.errors import UserError
from convnext_jax.train.state import TrainState

_ITEMS = ("params", "opt_state", "statistics", "ema")
BEST_METRICS = ("validation/top1", "test/top1")  # of these a run has one, by the split that it evaluates


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
      directory: where they lie; made where it does not exist.
      keep_latest: how many of the latest are kept.
      keep_best: how many with the highest ``validation/top1``, or ``test/top1``, are kept besides.
      read_only: whether nothing may be written or deleted.
    """

    def __init__(self, directory: Path, *, keep_latest: int = 1, keep_best: int = 0, read_only: bool = False) -> None:
        policy = policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep_latest),
                policies.BestN(
                    get_metric_fn=_best_metric,
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_names=_ITEMS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy,
                # Orbax writes figures only where this is given; what is kept, the policy alone decides.
                best_fn=_best_metric,
                read_only=read_only,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )

    def save(self, state: TrainState, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Starts to save a state and returns once the state may be donated; a step that is there is left alone.

        Args:
          state: the state after ``step`` steps.
          step: the same number as ``state.step``, which a look at would wait for the device.
          metrics: figures of this state; without them it cannot become the best.
        """
        if step in self._manager.all_steps():
            return
        items = {name: getattr(state, name) for name in _ITEMS}
        # Orbax writes no empty tree.
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items() if jax.tree.leaves(item)}
        self._manager.save(
            step, args=ocp.args.Composite(**arguments), metrics=None if metrics is None else dict(metrics)
        )

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The step of the latest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """The step of the highest accuracy, the earliest of equals, None where no checkpoint has one."""
        scored = {step: _best_metric(figures) for step in self.steps() if (figures := self.metrics(step))}
        return max(scored, key=lambda step: scored[step], default=None)

    def metrics(self, step: int) -> dict[str, float]:
        """The figures that a checkpoint was saved with, none for one that was saved in between."""
        return self._manager.metrics(step) or {}

    def select(self, which: str) -> int:
        """The step that ``best``, ``latest`` or a number means.

        Raises:
          UserError: there is no such checkpoint; the message lists those that there are.
        """
        steps = self.steps()
        if which in ("best", "latest"):
            # A run that was stopped before its first evaluation has no best yet, and its latest is all there is.
            best = self.best_step() if which == "best" else None
            step = best if best is not None else self.latest_step()
        else:
            step = int(which) if which.isdecimal() else None
        if step is None or step not in steps:
            there = f"there are {', '.join(map(str, steps))}" if steps else "there is none yet"
            raise UserError(f"{self._manager.directory}: no checkpoint {which!r}; {there}; or say best or latest")
        return step

    def restore_state(self, step: int, like: TrainState) -> TrainState:
        """The state of a checkpoint, with the shapes, dtypes and shardings of the arrays of ``like``."""
        items = {name: getattr(like, name) for name in _ITEMS}
        return TrainState(like.step + step, **self._restore(step, items))

    def restore_model(self, step: int, params: Any, statistics: Any, weights: str = "raw") -> tuple[Any, Any]:
        """The parameters, or with ``weights="ema"`` their moving average, and the running statistics alone.

        They have the shapes, dtypes and shardings of those given.
        """
        item = {"raw": "params", "ema": "ema"}[weights]
        restored = self._restore(step, {item: params, "statistics": statistics})
        return restored[item], restored["statistics"]

    def _restore(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        arguments = {name: ocp.args.StandardRestore(item) for name, item in items.items() if jax.tree.leaves(item)}
        restored: Any = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return {name: restored[name] if name in arguments else item for name, item in items.items()}

    def wait(self) -> None:
        """Returns when all that was saved is safe on the disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Waits for what is being written and releases the threads.
        self._manager.close()


def _best_metric(metrics: Mapping[str, float]) -> float:
    return next(metrics[name] for name in BEST_METRICS if name in metrics)
