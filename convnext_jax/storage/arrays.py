"""Named arrays in the format safetensors, which runs no code, from files that others made."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convnext_jax.errors import UserError, first_line
from convnext_jax.storage.files import write_bytes

# The largest network in the table, ConvNeXt V2 huge, has 660 million parameters: 5.3 GB at eight bytes each.
MOST_BYTES = 16 << 30


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a ``.safetensors`` file by name.

    The library verifies the length of the header, the number types, and that the arrays fill the file without gaps and
    overlaps, before it reads any of them. So what is allocated is never more than the size of the file.

    Args:
      path: the file.

    Raises:
      UserError: no such file, one of another format, cut short or of absurd size, or numbers that NumPy does not have.
    """
    import ml_dtypes  # noqa: F401  # NumPy knows bfloat16 once this is imported
    from safetensors.numpy import load_file

    try:
        size = os.stat(path).st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} has {size:,} bytes, more than {MOST_BYTES:,}: no network here has so many weights")
        arrays = load_file(path)
    except (AttributeError, TypeError) as error:  # some formats of 4, 6 and 8 bits
        raise UserError(
            f"{path} holds numbers that cannot be read ({first_line(error)}): save it as float32"
        ) from error
    except UserError:
        raise
    except Exception as error:  # SafetensorError, OSError, ValueError, MemoryError
        reason = first_line(error).removeprefix("Error while deserializing header: ")
        raise UserError(f"{path} is no safetensors file, or cut short ({reason}): fetch or make it again") from error
    for name, array in arrays.items():
        if array.dtype.kind == "c":
            raise UserError(f"{path} holds complex numbers under {name!r}: no network here has such weights")
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays into a ``.safetensors`` file, whole or not at all.

    The library's own writer makes a file that its owner alone may read, and raises an error of its own on a full disk.

    Args:
      path: the file.
      arrays: the arrays by name.
      metadata: texts by name, for the header.

    Raises:
      OSError: the file cannot be written.
    """
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_bytes(path, save(contiguous, metadata=None if metadata is None else dict(metadata)))
