"""What an experiment tracker is: another system that keeps the figures of a run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "convnext_jax"  # where the tracked runs are listed, unless the tracker's own variables say otherwise


class Tracker(Protocol):
    """Keeps the figures of a run in another system."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keeps the figures of a step. A step may come again, with other figures, if the run went back."""

    def close(self, *, completed: bool) -> None:
        """Sends what is not sent yet, and says whether the run has come to its end."""


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Attributes:
      identifier: of the tracked run, the same over all starts.
      name: as the tracker shows it.
      workdir: the folder of the run.
      settings: the configuration, ``{"section": {"field": value}}``.
    """

    identifier: str
    name: str
    workdir: Path
    settings: Mapping[str, Mapping[str, Any]]
