"""Saving the states of a run, so that a full disk or a folder that is away costs no more than it must."""

import errno
import logging
import os
from collections.abc import Mapping

import jax

from convnext_jax.errors import Failure, first_line
from convnext_jax.run.output import Output
from convnext_jax.run.peers import ALONE, Peers
from convnext_jax.storage.cloud import free_bytes
from convnext_jax.train.state import TrainState
from convnext_jax.workdir.checkpoint_folder import ITEMS
from convnext_jax.workdir.checkpoints import Checkpoints

log = logging.getLogger(__name__)


class SaveFailed(Failure):
    """The last state of a run could not be saved. The message says why, and what is needed."""


class Saver:
    """Saves the states of a run in its checkpoints.

    A save that fails takes nothing with it: the checkpoints from before stay. A warning says so once, and the next save
    tries again.

    Args:
      checkpoints: where states are saved.
      output: the log, which is written before each state, so that no line from before a checkpoint can be lost.
      peers: all processes of the run. One that cannot save ends the run for all, since the others would wait for it.
    """

    def __init__(self, checkpoints: Checkpoints, output: Output, peers: Peers = ALONE) -> None:
        self._checkpoints, self._output, self._peers = checkpoints, output, peers
        self._begun: tuple[int, int] | None = None  # the step and the bytes of the save that may still be under way
        self._fails = False

    def save(self, step: int, state: TrainState, figures: Mapping[str, float] | None = None) -> None:
        """Begins to save a state, and returns once its arrays may be donated."""
        self._settle()
        try:
            self._begin(step, state, figures)
        except Exception as error:  # OSError, or whatever Orbax and TensorStore raise
            self._warn(error)

    def save_and_wait(self, step: int, state: TrainState, figures: Mapping[str, float] | None = None) -> None:
        """Saves the last state of this start, trying twice.

        Raises:
          SaveFailed: it cannot be saved.
        """
        self._settle()
        for last in (False, True):
            try:
                self._begin(step, state, figures)
                self._checkpoints.wait()
            except Exception as error:
                if last or self._peers.count > 1:
                    raise SaveFailed(
                        f"{self._message(error)}; make room and run the same command again, which goes on from step"
                        f" {self._latest() or 0}"
                    ) from error
                self._checkpoints.start_over()
            else:
                return

    def discard(self, step: int) -> int:
        """Deletes the state of a step, if it was saved, and returns the step of the latest that is left, 0 if none."""
        self._settle()
        if step in self._checkpoints.steps():
            self._checkpoints.delete(step)
        return self._latest() or 0

    def _begin(self, step: int, state: TrainState, figures: Mapping[str, float] | None = None) -> None:
        items = {name: getattr(state, name) for name in ITEMS}
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
        self._begun = step, needed
        self._output.flush_log()
        there = step in self._checkpoints.steps()
        free = None if there else free_bytes(self._output.workdir)
        if free is not None and free < needed:  # TensorStore would say so once for each array
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._output.check_folder()
        if self._fails:
            self._checkpoints.start_over()  # the folder may be there again
        self._checkpoints.save(step, items, figures)

    def _settle(self) -> None:
        """Waits for the save before."""
        try:
            self._checkpoints.wait()
        except Exception as error:
            self._warn(error)
            return
        if self._begun is not None:
            self._fails = False

    def _warn(self, error: Exception) -> None:
        message = self._message(error)
        if self._peers.count > 1:
            raise SaveFailed(f"{message}; make room and run the same command again in every process") from error
        self._checkpoints.start_over()
        self._begun = None
        if not self._fails:
            log.warning(
                "%s; the run goes on, %s, and the next save tries again",
                message,
                f"the checkpoint of step {step} is kept" if (step := self._latest()) else "there is no checkpoint yet",
            )
        self._fails = True

    def _message(self, error: Exception) -> str:
        workdir = self._output.workdir
        step, needed = self._begun or (0, 0)
        free = free_bytes(workdir)
        room = f", {free / 2**20:.0f} MiB are free" if free is not None else ""
        return f"step {step} cannot be saved in {workdir} ({_reason(error)}): {needed / 2**20:.0f} MiB are needed{room}"

    def _latest(self) -> int | None:
        try:
            return self._checkpoints.latest_step()
        except Exception:  # the folder is away
            return None


def _reason(error: Exception) -> str:
    """Returns what the system said, which TensorStore has behind all it was about to do, or else the first line."""
    said = (os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO))
    return next((text for text in said if text in str(error)), first_line(error))
