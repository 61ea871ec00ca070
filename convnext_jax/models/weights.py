"""Weights to start from: a folder with ``weights.safetensors`` and ``model.json``.

The arrays have our own names and layout, in a format that any tool reads and that runs no code.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from convnext_jax.errors import UserError
from convnext_jax.models.parameters import flat_params, nested_params

_WEIGHTS, _RECORD = "weights.safetensors", "model.json"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights and what they are.

    Attributes:
      params: nested dictionaries of float32 arrays.
      model: the name of their architecture.
      stem: the name of their stem.
      num_classes: outputs of their head.
      source: where they came from, in words.
    """

    params: dict[str, Any]
    model: str
    stem: str
    num_classes: int
    source: str

    def write(self, directory: Path) -> None:
        """Writes the folder, whole or not at all.

        Raises:
          UserError: it exists already, or cannot be written.
        """
        if directory.exists():
            raise UserError(f"{directory} exists already; choose another --output")
        temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
        try:
            temporary.mkdir(parents=True)
            arrays = {path: np.ascontiguousarray(array) for path, array in flat_params(self.params).items()}
            save_file(arrays, temporary / _WEIGHTS)
            record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
            (temporary / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
            temporary.rename(directory)
        except OSError as error:
            raise UserError(f"{directory} cannot be written ({error.strerror}); choose another --output") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def read(cls, directory: Path) -> "Pretrained":
        """Reads the folder; raises UserError where it is none."""
        try:
            record = json.loads((directory / _RECORD).read_text())
            return cls(nested_params(load_file(directory / _WEIGHTS)), **record)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{directory} holds no weights to start from ({error}); make it with"
                " python -m convnext_jax.tools.import_torch WEIGHTS --model NAME --output DIR"
            ) from error


def start_from(pretrained: Pretrained, params: Any) -> tuple[dict[str, Any], list[str]]:
    """Puts pretrained weights in the places of freshly drawn ones.

    The head stays fresh where its number of classes differs, and a stem's kernel of another size is resized.

    Args:
      pretrained: the weights.
      params: parameters of the model to start, for their shapes, and for what is not taken over.

    Returns:
      The parameters, and a sentence for each thing that was not taken over as it is.

    Raises:
      UserError: another architecture; all names that are missing, left over or of another shape are listed.
    """
    fresh, given, notes = flat_params(params), flat_params(pretrained.params), []
    head = ("head/kernel", "head/bias")
    if fresh[head[1]].shape != given[head[1]].shape:
        notes.append(f"a fresh head of {fresh[head[1]].size} classes stands for the one of {given[head[1]].size}")
        given |= {path: fresh[path] for path in head}
    stem = "stem/conv/kernel"
    if fresh[stem].shape != given[stem].shape and fresh[stem].shape[2:] == given[stem].shape[2:]:
        sizes = [f"{kernel.shape[0]}x{kernel.shape[1]}" for kernel in (given[stem], fresh[stem])]
        notes.append(f"the stem's kernel is resized from {sizes[0]} to {sizes[1]}")
        given[stem] = resize_kernel(given[stem], fresh[stem].shape[0])
    problems = [
        *(f"{path} is missing" for path in fresh if path not in given),
        *(f"{path} is left over" for path in given if path not in fresh),
        *(
            f"{path} is {list(given[path].shape)}, not {list(array.shape)}"
            for path, array in fresh.items()
            if path in given and given[path].shape != array.shape
        ),
    ]
    if problems:
        raise UserError(f"the weights, of {pretrained.model}, do not fit this model: {'; '.join(problems)}")
    return nested_params({path: given[path] for path in fresh}), notes


def resize_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """A stem's kernel [k,k,C,D] at another size, [size,size,C,D].

    Each weight goes to the pixels that cover its place, by the area that they share, so that the weights' sum, the
    answer to a flat image, is kept.
    """
    old, new = np.linspace(0.0, 1.0, kernel.shape[0] + 1), np.linspace(0.0, 1.0, size + 1)
    # share[i, j]: how much of old weight j lies in new pixel i.
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    share = np.maximum(overlap, 0.0) * kernel.shape[0]
    return np.einsum("ai,bj,ijcd->abcd", share, share, kernel).astype(np.float32)
