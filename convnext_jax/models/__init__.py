"""ConvNeXt and its variants: `create_model`, `list_models`, and models as plain parameters (`split_model`).

The names below load on first use, so that `convnext_jax.models.architectures` alone costs no import of JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_jax.models.convnext import ConvNeXt
    from convnext_jax.models.create import create_model, list_models
    from convnext_jax.models.parameters import (
        abstract_model,
        count_parameters,
        merge_model,
        running_statistics,
        split_model,
    )

__all__ = [
    "ConvNeXt",
    "abstract_model",
    "count_parameters",
    "create_model",
    "list_models",
    "merge_model",
    "running_statistics",
    "split_model",
]

_HOMES = {
    "ConvNeXt": "convnext",
    "create_model": "create",
    "list_models": "create",
    "abstract_model": "parameters",
    "count_parameters": "parameters",
    "merge_model": "parameters",
    "running_statistics": "parameters",
    "split_model": "parameters",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
