"""How often a run diverged and was taken back: ``rollbacks.json``."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from convnext_jax.errors import UserError
from convnext_jax.storage.checksums import sealed, unsealed
from convnext_jax.storage.files import write_json

_NAME = "rollbacks.json"


@dataclasses.dataclass(frozen=True)
class Rollback:
    """One of them.

    Attributes:
      diverged_at: the first step whose loss or gradient was not finite.
      from_step: the step of the checkpoint that the run went on from.
      factor: by which the learning rate of all later steps is multiplied.
    """

    diverged_at: int
    from_step: int
    factor: float


def read_rollbacks(workdir: Path) -> list[Rollback]:
    """Returns the rollbacks of a run, in their order; raises UserError if their file is damaged."""
    path = workdir / _NAME
    try:
        return [Rollback(**fields) for fields in unsealed(path.read_text(encoding="utf-8"))["rollbacks"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or begin a new run") from error


def write_rollbacks(workdir: Path, rollbacks: Sequence[Rollback]) -> None:
    """Writes ``rollbacks.json``."""
    write_json(workdir / _NAME, sealed({"rollbacks": [dataclasses.asdict(each) for each in rollbacks]}))
