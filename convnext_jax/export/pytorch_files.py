"""Weights for the libraries of PyTorch: a ``model.safetensors`` in their names, with what they read beside it."""

from pathlib import Path

import jax
import numpy as np

from convnext_jax.evaluate.opened_classifier import OpenedClassifier
from convnext_jax.export.pytorch_models import WEIGHTS_FILE, PyTorchModel
from convnext_jax.models.torch_import import export_state_dict
from convnext_jax.storage.arrays import write_arrays
from convnext_jax.storage.files import write_json


def write_pytorch(network: OpenedClassifier, model: PyTorchModel, folder: Path) -> None:
    """Writes the weights of a network, float32, and the files that a library reads beside them.

    Args:
      network: the network.
      model: how the library builds it (`convnext_jax.export.pytorch_models.pytorch_model`).
      folder: where to; it exists.
    """
    params, batch_stats = jax.device_get((network.params, network.batch_stats))
    state = export_state_dict(network.architecture, model.layout, params, batch_stats)
    head = network.architecture.torch_name("head/bias", model.layout).removesuffix("bias")
    named = {name if name.startswith(head) else model.prefix + name: array for name, array in state.items()}
    # PyTorch counts the batches that went into its running statistics, and misses the count.
    named |= {
        name.removesuffix("running_mean") + "num_batches_tracked": np.asarray(0, np.int64)
        for name in named
        if name.endswith("running_mean")
    }
    # transformers asks for the format.
    write_arrays(folder / WEIGHTS_FILE, named, metadata={"format": "pt"})
    for name, content in model.files.items():
        write_json(folder / name, content)
