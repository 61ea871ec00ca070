"""What the folder of a checkpoint holds, and whether it can be believed."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from convnext_jax.errors import first_line
from convnext_jax.storage.checksums import damage, has_checksums
from convnext_jax.storage.cloud import is_cloud, move
from convnext_jax.storage.files import parse_json

ITEMS = ("params", "opt_state", "batch_stats", "ema", "ema_batch_stats")
FORMER_NAMES = {"batch_stats": "statistics"}  # as version 0.1 called them
METRICS = "metrics"  # Orbax's name for the folder and for the file in it
_ORBAX_METADATA = "_CHECKPOINT_METADATA"  # Orbax writes the time into it once more at the very end
_COMMITTED = "commit_success.txt"  # Orbax writes it last in a bucket
WRITTEN_LATER = (_ORBAX_METADATA, _COMMITTED)


def saved_steps(directory: Path) -> list[int]:
    """Returns the steps whose checkpoints are in a folder, in order."""
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal() and _is_complete(path))


def unfinished(directory: Path) -> list[Path]:
    """Returns the folders of the checkpoints that are being written."""
    if is_cloud(directory):  # under their final names, since nothing in a bucket can be renamed
        return [path for path in directory.glob("*") if path.name.isdecimal() and not _is_complete(path)]
    return list(directory.glob("*.orbax-checkpoint-tmp*"))


def set_damaged_aside(directory: Path) -> list[str]:
    """Moves checkpoints aside that are damaged and later than the latest that is not.

    Args:
      directory: where the checkpoints are. The damaged ones go into ``damaged_checkpoints`` beside it.

    Returns:
      A sentence for each that was moved, and one if the latest cannot be verified.
    """
    notes = []
    for step in reversed(saved_steps(directory)):
        folder = directory / str(step)
        verified = has_checksums(folder)
        reason = damage_of(folder) if verified else _unreadable(folder)
        if reason is None:
            if not verified:
                read = "it can be read, but not verified" if jax.process_count() == 1 else "it cannot be verified"
                notes.append(f"the checkpoint of step {step} has no checksums; {read}")
            break
        aside = directory.with_name("damaged_checkpoints") / str(step)
        while aside.exists():
            aside = aside.with_name(f"{aside.name}_again")
        move_checkpoint(folder, aside)
        notes.append(f"the checkpoint of step {step} is damaged ({reason}); it was moved to {aside}")
    return notes


def move_checkpoint(folder: Path, target: Path) -> None:
    """Renames the folder of a checkpoint. A kill in between leaves it where it was, or where it was to be."""
    move(folder, target, last=_COMMITTED)


def _is_complete(folder: Path) -> bool:
    return (folder / _COMMITTED).exists() if is_cloud(folder) else folder.is_dir()


def damage_of(folder: Path) -> str | None:
    """Returns what is wrong with a checkpoint, None if nothing is or if it has no checksums."""
    try:
        if has_checksums(folder):
            parse_json((folder / _ORBAX_METADATA).read_bytes())
    except (OSError, ValueError):
        return f"{_ORBAX_METADATA} is missing or damaged"
    return damage(folder)


def _unreadable(folder: Path) -> str | None:
    """Returns why a checkpoint without checksums cannot be read as a whole, None if it can."""
    items = [folder / name for name in (*ITEMS, *FORMER_NAMES.values()) if (folder / name).is_dir()]
    if not {"params", "opt_state"} <= {item.name for item in items}:
        return "it lacks the parameters or the state of the optimizer"
    if jax.process_count() > 1:  # Orbax reads in all processes at once, and this is one of them
        return None
    for item in items:
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.restore(item)
        except Exception as error:  # whatever Orbax and TensorStore raise for what they cannot read
            return f"{item.name}: {first_line(error)}"
    return None
