"""A run made longer: ``--extend``. It becomes, bit for bit, the run that would have been this long from the start."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from convnext_jax.config import Experiment
from convnext_jax.errors import UserError, writing
from convnext_jax.optim.schedules import make_schedule
from convnext_jax.storage.files import write_bytes
from convnext_jax.workdir.checkpoint_folder import move_checkpoint, saved_steps
from convnext_jax.workdir.claim import check_claim, has_begun, identity, read_experiment
from convnext_jax.workdir.rollbacks import read_rollbacks, write_rollbacks

# What may differ between a run and its extension.
_MAY_DIFFER = ("run.epochs", "optim.decay_epochs", "optim.decay_fraction")
_COPIED = (
    *("config.json", "dataset.json", "environment.json"),
    *("metrics.jsonl", "summary.json", "curves.png", "rollbacks.json"),
)


def check_checkpoints(workdir: Path) -> None:
    """Raises UserError if a finished run has no checkpoints, since it would begin anew and lose its log."""
    if (workdir / "summary.json").exists() and not saved_steps(workdir / "checkpoints"):
        raise UserError(
            f"{workdir} has the log of a finished run and no checkpoints: restore them, or choose another --workdir"
        )


def check_start(workdir: Path, experiment: Experiment, *, may_extend: bool) -> Experiment | None:
    """Checks that a run in a workdir can begin, go on or be extended, as far as the settings tell.

    Returns:
      The settings of the run that is there, if it is to be made longer; None if it is not.

    Raises:
      UserError: the workdir belongs to another configuration, which is not this one with fewer epochs, or has lost the
        checkpoints of a finished run.
    """
    before = read_experiment(workdir) if may_extend and has_begun(workdir) else None
    if before is not None and identity(before) == identity(experiment):
        before = None
    check_claim(workdir, experiment, may_differ=() if before is None else _MAY_DIFFER)
    if experiment.run.seeds == 1:  # else it holds the workdirs of the seeds, and a summary of them
        check_checkpoints(workdir)
    if before is None:
        return None
    if experiment.run.epochs <= before.run.epochs:
        raise UserError(
            f"--extend: the run in {workdir} has {before.run.epochs} epochs already; give more with --config.run.epochs"
        )
    if before.run.image_sizes:
        raise UserError(
            f"--extend: config.run.image_sizes={before.run.image_sizes} are spread over the whole run, so a longer one"
            " would have trained on other sizes from the start; begin a new run in another --workdir"
        )
    return before


def extend(workdir: Path, before: Experiment, after: Experiment, steps_per_epoch: int) -> str:
    """Takes a run back to its latest checkpoint that a longer run would have had, too.

    Later checkpoints, and copies of the log and the figures, go to ``before_extension_<epochs>`` in the workdir, which
    can be evaluated like any workdir. A rollback is taken back if the longer run would not have diverged there. A kill
    in between does no harm: the same command goes on.

    Args:
      workdir: of the run.
      before: its settings.
      after: the settings of the longer run, checked by `check_start`.
      steps_per_epoch: steps of an epoch.

    Returns:
      What was done, in a sentence.

    Raises:
      UserError: the learning rates of the longer run would have been others, or no checkpoint is early enough.
    """
    total = before.run.epochs * steps_per_epoch
    common = _common_steps(before, after, steps_per_epoch)
    folder = workdir / "checkpoints"
    steps = saved_steps(folder)
    rollbacks = read_rollbacks(workdir)
    kept = list(itertools.takewhile(lambda rollback: rollback.diverged_at <= common, rollbacks))
    last = min([common, *(rollback.from_step for rollback in rollbacks[len(kept) :])])
    usable = max((step for step in steps if step <= last), default=None)
    if usable is None and steps:
        none_kept = f", of which no checkpoint was kept (the earliest is of step {steps[0]})" if common else ""
        raise UserError(
            f"--extend: with config.optim.schedule={before.optim.schedule} a run of {after.run.epochs} epochs has the"
            f" learning rates of one of {before.run.epochs} in its first {common} of {total} steps alone{none_kept};"
            " schedules step and warmup_stable_decay can be extended; begin a new run in another --workdir"
        )
    later = [step for step in steps if step > (usable or 0)]
    aside = workdir / f"before_extension_{before.run.epochs}"
    with writing(aside, "--workdir"):
        if later:
            (aside / "checkpoints").mkdir(parents=True, exist_ok=True)
            for name in _COPIED:
                if (workdir / name).exists():
                    write_bytes(aside / name, (workdir / name).read_bytes())
        for step in reversed(later):  # the run goes on from the latest that is left, if it is killed here
            move_checkpoint(folder / str(step), aside / "checkpoints" / str(step))
        if kept != rollbacks:  # only now: which checkpoints are usable depends on them
            write_rollbacks(workdir, kept)
    moved = f"; what came after it is in {aside}" if later else ""
    return f"extending the run from {before.run.epochs} to {after.run.epochs} epochs, from step {usable or 0}{moved}"


def _common_steps(before: Experiment, after: Experiment, steps_per_epoch: int) -> int:
    """Returns the number of steps, from the first on, that have the same learning rate in both."""
    steps = jnp.arange(before.run.epochs * steps_per_epoch)
    one, other = (
        np.asarray(jax.vmap(make_schedule(each.optim, each.run.epochs, steps_per_epoch))(steps))
        for each in (before, after)
    )
    return int(np.argmin(one == other)) if (one != other).any() else len(steps)
