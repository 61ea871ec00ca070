"""Train and evaluate ConvNeXt, its variants and the networks it is compared with on small images, in JAX.

The names below load on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convnext_jax.evaluate.classifier import Classifier, load
    from convnext_jax.models import create_model, list_models, load_model

_HOMES = {
    "Classifier": "evaluate.classifier",
    "load": "evaluate.classifier",
    "create_model": "models",
    "list_models": "models",
    "load_model": "models",
}
__all__ = ["Classifier", "create_model", "list_models", "load", "load_model"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
