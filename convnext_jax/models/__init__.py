"""Networks by name, networks as plain trees of parameters, and weights.

The names below load on first use, so that a command line that needs no network starts without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_jax.models.interface import Architecture, Model
    from convnext_jax.models.parameters import (
        abstract_model,
        batch_stats_of,
        count_parameters,
        merge_model,
        split_model,
    )
    from convnext_jax.models.registry import create_model, list_models, load_model
    from convnext_jax.models.table import MODELS

_HOMES = {
    "Architecture": "interface",
    "Model": "interface",
    "abstract_model": "parameters",
    "batch_stats_of": "parameters",
    "count_parameters": "parameters",
    "merge_model": "parameters",
    "split_model": "parameters",
    "MODELS": "table",
    "create_model": "registry",
    "list_models": "registry",
    "load_model": "registry",
}
__all__ = [
    "MODELS",
    "Architecture",
    "Model",
    "abstract_model",
    "batch_stats_of",
    "count_parameters",
    "create_model",
    "list_models",
    "load_model",
    "merge_model",
    "split_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
