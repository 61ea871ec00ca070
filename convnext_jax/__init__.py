"""Train and evaluate ConvNeXt, its variants and the networks it is compared with on small images, in JAX.

The names below load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_jax.models import create_model, list_models, load_model

__all__ = ["create_model", "list_models", "load_model"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("convnext_jax.models"), name)
