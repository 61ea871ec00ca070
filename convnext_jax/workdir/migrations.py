"""What ``config.json`` of earlier versions means today, so that no run is orphaned by a change of its format."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from convnext_jax.errors import UserError

FORMAT = 2
_RGB = ("cifar100", "cifar10", "tiny_imagenet", "digits", "image_folder")  # RGB unless configured otherwise


@dataclasses.dataclass(frozen=True)
class Migrated:
    """The content of a ``config.json`` at today's format.

    Attributes:
      sections: the settings.
      finished_because: why the run cannot be trained on, None if it can. It can be evaluated in any case.
    """

    sections: dict[str, Any]
    finished_because: str | None = None


def migrate(content: Mapping[str, Any]) -> Migrated:
    """Brings the content of a ``config.json`` to today's format.

    Raises:
      UserError: a later version wrote it.
    """
    sections = dict(content)
    version = sections.pop("format", 1)
    if not isinstance(version, int) or version > FORMAT:
        raise UserError(f"it has format {version}, and this version of convnext_jax reads up to {FORMAT}; update it")
    return _from_1(sections) if version == 1 else Migrated(sections)


def _from_1(sections: dict[str, Any]) -> Migrated:
    """Version 0.1 knew ConvNeXt alone and drew all kernels as its reference, which it called "normal".

    Fields that were not given were None, which today's parser takes for not given. All images were RGB. Layer-wise
    decay had a level more than either reference, which no setting reproduces.
    """
    model, data, optim = (dict(sections.get(name) or {}) for name in ("model", "data", "optim"))
    if model.get("initialization") == "normal":
        model["initialization"] = "reference"
    if data.get("name", _RGB[0]) not in _RGB:
        data["channels"] = 3
    reason = None
    if optim.get("layer_decay", 1.0) != 1.0:
        reason = (
            f"it was begun by version 0.1 with config.optim.layer_decay={optim['layer_decay']}, whose levels were not"
            " the papers' and are no longer offered; finish it with version 0.1, or begin a new run"
        )
    return Migrated(sections | {"model": model, "data": data}, reason)
