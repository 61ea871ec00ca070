"""Checkpoints: written in the background, whole or not at all, the latest and the best kept.

A checkpoint holds named items, each a tree of arrays: ``params``, ``opt_state`` and, if there are any, ``batch_stats``,
``ema`` and ``ema_batch_stats``. So an evaluation reads the model alone, and needs to know nothing of the optimizer.
"""

import contextlib
import functools
import heapq
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from convnext_jax.errors import UserError
from convnext_jax.storage.checksums import has_checksums, write_checksums
from convnext_jax.storage.cloud import is_cloud
from convnext_jax.storage.files import write_json
from convnext_jax.workdir.best_metric import BestMetric
from convnext_jax.workdir.checkpoint_folder import FORMER_NAMES, ITEMS, METRICS, WRITTEN_LATER, damage_of, unfinished

_TOP1 = BestMetric("top1", True)


class _LatestEvaluated(policies.PreservationPolicy):
    """Keeps the latest checkpoints that have figures. What is saved in between takes nobody's place."""

    def __init__(self, count: int) -> None:
        self._count = count

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> Sequence[bool]:
        kept = [info.step for info in checkpoints if info.metrics][-self._count :]
        return [info.step in kept for info in checkpoints]


class _Best(policies.PreservationPolicy):
    """Keeps the best checkpoints. Of equals Orbax's own policy keeps the latest, this one the earliest."""

    def __init__(self, score: Callable[[Any], float], count: int) -> None:
        self._score, self._count = score, count

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> Sequence[bool]:
        scored = [(self._score(info.metrics), -info.step) for info in checkpoints if info.metrics]
        kept = {-step for _, step in heapq.nlargest(self._count, scored)}
        return [info.step in kept for info in checkpoints]


class _LatestUpTo(policies.PreservationPolicy):
    """Keeps the latest checkpoint up to a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def should_preserve(
        self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: policies.PreservationContext
    ) -> Sequence[bool]:
        last = max((info.step for info in checkpoints if info.step <= self._step), default=None)
        return [info.step == last for info in checkpoints]


class Checkpoints:
    """The checkpoints of a workdir.

    Args:
      directory: where they are; created if it does not exist.
      keep_latest: how many of the latest with figures are kept. The very latest is kept in any case.
      keep_best: how many of the best are kept besides.
      keep_before: the latest checkpoint up to this step is kept besides; None keeps none for that.
      best: the figure that says which are the best.
      read_only: whether nothing may be written or deleted.

    Raises:
      UserError: Orbax cannot write there, since the path is not UTF-8.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_latest: int = 1,
        keep_best: int = 0,
        keep_before: int | None = None,
        best: BestMetric = _TOP1,
        read_only: bool = False,
    ) -> None:
        self._best = best
        self._directory = directory if is_cloud(directory) else directory.absolute()
        _check_is_utf8(self._directory)
        if not read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        policy = policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                _LatestEvaluated(keep_latest),
                _LatestUpTo(-1 if keep_before is None else keep_before),
                _Best(best.score, keep_best),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            # Orbax writes figures only if this is given. The policy alone decides what is kept.
            best_fn=best.score,
            read_only=read_only,
            create=False,  # a folder that vanished is not made again
            cleanup_tmp_directories=not read_only,
            # Called between the last byte and the renaming that makes a checkpoint appear.
            async_options=None if read_only else ocp.AsyncOptions(post_finalization_callback=self._add_checksums),
        )
        self._open = functools.partial(
            ocp.CheckpointManager,
            self._directory,
            item_names=(*ITEMS, *FORMER_NAMES.values()),
            options=options,
        )
        self._manager = self._open()

    def save(self, step: int, items: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Starts to save items and returns once their arrays may be donated.

        If the step is there already, only its metrics are written, and only if it has none. An error of the save before
        may come to light now.

        Args:
          step: how many steps are done.
          items: trees of arrays by name, of `ITEMS`.
          metrics: figures of this state. Without them it cannot become the best.
        """
        if step in self._manager.all_steps():
            if metrics is not None:
                self._add_metrics(step, metrics)
            return
        # Orbax writes no empty tree.
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items() if jax.tree.leaves(item)}
        self._manager.save(
            step, args=ocp.args.Composite(**arguments), metrics=None if metrics is None else dict(metrics)
        )

    def _add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._manager.wait_until_finished()
        # Process 0 alone looks: another might see what it has written by then, and not wait for it.
        if jax.process_index() == 0 and not self.metrics(step):
            folder = self._directory / str(step)
            verified = has_checksums(folder)
            (folder / METRICS).mkdir(exist_ok=True)
            write_json(folder / METRICS / METRICS, metrics)
            if verified:  # a file that has no checksum yet does no harm, if this is as far as it gets
                write_checksums(folder, leave_out=WRITTEN_LATER)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("metrics of a checkpoint")
        self._manager.reload()

    def _add_checksums(self) -> None:
        for folder in unfinished(self._directory) if jax.process_index() == 0 else ():
            write_checksums(folder, leave_out=WRITTEN_LATER)

    def start_over(self) -> None:
        """Begins anew after a save that failed: forgets it, and removes what it left."""
        with contextlib.suppress(Exception):  # it says once more what went wrong
            self._manager.close()
        self._manager = self._open()

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        self._manager.delete(step)

    def steps(self) -> list[int]:
        """Returns the steps of all checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Returns the step of the latest checkpoint, None if there is no checkpoint."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the step with the best figure, the earliest of equals, None if no checkpoint has figures."""
        scored = {step: self._best.score(figures) for step in self.steps() if (figures := self.metrics(step))}
        return max(scored, key=lambda step: scored[step], default=None)

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the figures that a checkpoint was saved with, none for one that was saved in between."""
        return self._manager.metrics(step) or {}

    def select(self, which: str) -> int:
        """Returns the step that ``best``, ``latest`` or a number means.

        Raises:
          UserError: there is no such checkpoint. The message lists those that there are.
        """
        steps = self.steps()
        if which in ("best", "latest"):
            # A run that was stopped before its first evaluation has no best yet, and its latest is all there is.
            best = self.best_step() if which == "best" else None
            step = best if best is not None else self.latest_step()
        else:
            step = int(which) if which.isdecimal() else None
        if step is None or step not in steps:
            there = f"there are {', '.join(map(str, steps))}; or say best or latest" if steps else "there is none yet"
            raise UserError(f"{self._directory}: no checkpoint {which!r}; {there}")
        return step

    def verify(self, step: int) -> None:
        """Raises UserError if a checkpoint is damaged. The message lists those that are not."""
        if reason := damage_of(self._directory / str(step)):
            good = [each for each in self.steps() if each != step and not damage_of(self._directory / str(each))]
            remedy = f"choose another: {', '.join(map(str, good))}" if good else "and there is no other"
            raise UserError(f"{self._directory}: the checkpoint of step {step} is damaged ({reason}); {remedy}")

    def restore(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Returns items of a checkpoint.

        Args:
          step: that of the checkpoint.
          like: by name, trees of shapes, dtypes and shardings. Empty items are returned as they are.
        """
        folder = self._directory / str(step)
        names = {name: name if (folder / name).exists() else FORMER_NAMES.get(name, name) for name in like}
        arguments = {
            names[name]: ocp.args.StandardRestore(item) for name, item in like.items() if jax.tree.leaves(item)
        }
        restored: Any = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        return {name: restored[names[name]] if names[name] in arguments else item for name, item in like.items()}

    def wait(self) -> None:
        """Returns when all that was saved is safe on the disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Waits for what is being written, and releases the threads.
        try:
            self._manager.close()
        except Exception:
            if error is None:  # otherwise that is what went wrong first
                raise


def _check_is_utf8(directory: Path) -> None:
    # TensorStore takes a path as UTF-8, whatever the locale. Otherwise the first save would fail, an epoch from now.
    path = str(directory)
    try:
        is_utf8 = path.encode() == os.fsencode(path)
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        raise UserError(
            f"{directory}: checkpoints need a path in UTF-8, and this one is not, or the locale is another; rename the"
            " folder or choose another --workdir, or set PYTHONUTF8=1"
        )
